/* Tensor maps of the fake driver; part of fake_driver.c. A map is the address followed by a hash of everything else, and
 * the last call is kept with all its arguments, which tests read through dlsym. */

enum { MAP_WRONG, MAP_TILED, MAP_IM2COL, MAP_IM2COL_WIDE, MAP_REPLACED, MAP_KINDS };

/* Eight-byte fields first: no padding, so the hash below sees only what was written. */
struct tensor_map_call {
    uint64_t address, sizes[5], strides[4];
    uint32_t kind, data_type, rank;
    uint32_t box[5];
    int32_t lower[3], upper[3];
    uint32_t channels, pixels;
    uint32_t steps[5];
    uint32_t interleave, swizzle, l2_promotion, oob_fill, mode;
};

struct tensor_map_call fake_tensor_map_call;
/* How often each function succeeded, by kind, and how often one was given a map that it cannot write. */
int fake_tensor_map_counts[MAP_KINDS];

static CUresult tensor_map_finish(uint64_t *map, const struct tensor_map_call *call)
{
    struct tensor_map_call hashed = *call;
    const unsigned char *bytes = (const unsigned char *)&hashed;
    if ((uintptr_t)map % 64 != 0) { fake_tensor_map_counts[MAP_WRONG]++; return INVALID_VALUE; }
    fake_tensor_map_call = *call;
    hashed.address = 0;
    map[0] = call->address;
    for (uint64_t i = 1; i < 16; i++) {
        uint64_t hash = 14695981039346656037u + i;
        for (size_t k = 0; k < sizeof hashed; k++) hash = (hash ^ bytes[k]) * 1099511628211u;
        map[i] = hash;
    }
    fake_tensor_map_counts[call->kind]++;
    return SUCCESS;
}

/* What all kinds have; each array is read exactly as far as the rank says. */
static struct tensor_map_call tensor_map_start(uint32_t kind, uint32_t data_type, uint32_t rank, void *address,
    const uint64_t *sizes, const uint64_t *strides, const uint32_t *steps, uint32_t interleave, uint32_t swizzle,
    uint32_t l2_promotion, uint32_t oob_fill)
{
    struct tensor_map_call call;
    memset(&call, 0, sizeof call);
    call.kind = kind;
    call.data_type = data_type;
    call.rank = rank;
    call.address = (uint64_t)(uintptr_t)address;
    for (uint32_t i = 0; i < rank && i < 5; i++) { call.sizes[i] = sizes[i]; call.steps[i] = steps[i]; }
    for (uint32_t i = 0; i + 1 < rank && i < 4; i++) call.strides[i] = strides[i];
    call.interleave = interleave;
    call.swizzle = swizzle;
    call.l2_promotion = l2_promotion;
    call.oob_fill = oob_fill;
    return call;
}

static CUresult tensor_map_tiled(uint64_t *map, uint32_t data_type, uint32_t rank, void *address, const uint64_t *sizes,
    const uint64_t *strides, const uint32_t *box, const uint32_t *steps, uint32_t interleave, uint32_t swizzle,
    uint32_t l2_promotion, uint32_t oob_fill)
{
    ENTER("cuTensorMapEncodeTiled");
    struct tensor_map_call call = tensor_map_start(MAP_TILED, data_type, rank, address, sizes, strides, steps, interleave,
        swizzle, l2_promotion, oob_fill);
    for (uint32_t i = 0; i < rank && i < 5; i++) call.box[i] = box[i];
    return tensor_map_finish(map, &call);
}

static CUresult tensor_map_im2col(uint64_t *map, uint32_t data_type, uint32_t rank, void *address, const uint64_t *sizes,
    const uint64_t *strides, const int *lower, const int *upper, uint32_t channels, uint32_t pixels,
    const uint32_t *steps, uint32_t interleave, uint32_t swizzle, uint32_t l2_promotion, uint32_t oob_fill)
{
    ENTER("cuTensorMapEncodeIm2col");
    struct tensor_map_call call = tensor_map_start(MAP_IM2COL, data_type, rank, address, sizes, strides, steps, interleave,
        swizzle, l2_promotion, oob_fill);
    for (uint32_t i = 0; i + 2 < rank && i < 3; i++) { call.lower[i] = lower[i]; call.upper[i] = upper[i]; }
    call.channels = channels;
    call.pixels = pixels;
    return tensor_map_finish(map, &call);
}

static CUresult tensor_map_im2col_wide(uint64_t *map, uint32_t data_type, uint32_t rank, void *address,
    const uint64_t *sizes, const uint64_t *strides, int lower, int upper, uint32_t channels, uint32_t pixels,
    const uint32_t *steps, uint32_t interleave, uint32_t mode, uint32_t swizzle, uint32_t l2_promotion,
    uint32_t oob_fill)
{
    ENTER("cuTensorMapEncodeIm2colWide");
    struct tensor_map_call call = tensor_map_start(MAP_IM2COL_WIDE, data_type, rank, address, sizes, strides, steps,
        interleave, swizzle, l2_promotion, oob_fill);
    call.lower[0] = lower;
    call.upper[0] = upper;
    call.channels = channels;
    call.pixels = pixels;
    call.mode = mode;
    return tensor_map_finish(map, &call);
}

static CUresult tensor_map_replace_address(uint64_t *map, void *address)
{
    if ((uintptr_t)map % 64 != 0) { fake_tensor_map_counts[MAP_WRONG]++; return INVALID_VALUE; }
    /* Where it fails, it has done half of it. */
    map[0] = UINT64_MAX;
    ENTER("cuTensorMapReplaceAddress");
    map[0] = (uint64_t)(uintptr_t)address;
    fake_tensor_map_counts[MAP_REPLACED]++;
    return SUCCESS;
}

#define TENSOR_MAP_ENTRIES \
    { "cuTensorMapEncodeTiled", 12000, (void *)tensor_map_tiled }, \
    { "cuTensorMapEncodeIm2col", 12000, (void *)tensor_map_im2col }, \
    { "cuTensorMapEncodeIm2colWide", 12080, (void *)tensor_map_im2col_wide }, \
    { "cuTensorMapReplaceAddress", 12000, (void *)tensor_map_replace_address },
