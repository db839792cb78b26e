/* Device memory, pools and page-locked memory of the fake driver; part of fake_driver.c.
 *
 * Blocks are never given back to the C library: what comes too late meets poisoned bytes and is counted, and crashes nothing. */

enum state { UNBORN, LIVE, GONE };

struct pool { int alive; uint64_t threshold, reserved, reserved_high, used, used_high; struct pool *next; };

/* cached: gone, and kept by its pool for the next block of this size. */
struct block { uint64_t at; size_t bytes; enum state state; int host, freed, cached; unsigned flags; struct pool *pool; struct block *next; };

static struct block *blocks;
static struct pool *pools;
/* Of device memory, by pools and without. */
static uint64_t reserved;

static struct block *block_of(uint64_t at, size_t bytes)
{
    for (struct block *block = blocks; block; block = block->next)
        if (at >= block->at && bytes <= block->bytes && at - block->at <= block->bytes - bytes) return block;
    return NULL;
}

static struct block *new_block(size_t bytes, enum state state)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 4096, bytes) != 0) return NULL;
    memset(memory, 0xAB, bytes);
    struct block *block = calloc(1, sizeof *block);
    *block = (struct block){ .at = (uint64_t)(uintptr_t)memory, .bytes = bytes, .state = state, .next = blocks };
    return blocks = block;
}

static void bury(struct block *block)
{
    block->state = GONE;
    memset((void *)(uintptr_t)block->at, 0xDD, block->bytes);
}

/* Whether work that has not run yet will touch a block. */
static int in_use(const struct block *block)
{
    for (struct stream *stream = streams; stream; stream = stream->next)
        for (struct op *op = stream->first; op; op = op->next) {
            if (op->kind > FILL32) continue;
            if (op->to - block->at < block->bytes || op->from - block->at < block->bytes) return 1;
        }
    return 0;
}

/* The memory of an operation, or null, counted, where it is not there at that moment. */
static unsigned char *reach(uint64_t at, size_t bytes)
{
    struct block *block = block_of(at, bytes);
    if (block && block->state == LIVE) return (unsigned char *)(uintptr_t)at;
    fake_counts[MISUSED]++;
    return NULL;
}

static void perform(struct op *op)
{
    if (op->kind == BIRTH || op->kind == DEATH) {
        struct block *block = block_of(op->to, op->bytes);
        fake_counts[MISUSED] += block->state != (op->kind == BIRTH ? UNBORN : LIVE);
        if (op->kind == BIRTH) { block->state = LIVE; return; }
        bury(block);
        block->pool->used -= block->bytes;
        if (block->pool->reserved > block->pool->threshold) {
            block->pool->reserved -= block->bytes;
            reserved -= block->bytes;
        } else {
            block->cached = 1;
        }
        return;
    }
    unsigned char *to = reach(op->to, op->bytes);
    unsigned char *from = op->kind != COPY ? to : op->staged ? op->staged : reach(op->from, op->bytes);
    if (to == NULL || from == NULL) return;
    switch (op->kind) {
    case COPY: memcpy(to, from, op->bytes); break;
    case FILL8: memset(to, (int)op->value, op->bytes); break;
    default: for (size_t i = 0; i < op->bytes; i += 4) memcpy(to + i, &op->value, 4);
    }
}

static struct pool *pool_of(void *handle)
{
    for (struct pool *pool = pools; pool; pool = pool->next)
        if (pool == handle && pool->alive) return pool;
    fake_counts[MISUSED]++;
    return NULL;
}

struct pool_properties { int type, handles, location, device; void *security; size_t most; unsigned short usage; unsigned char zero[54]; };

static CUresult pool_create(void **handle, const struct pool_properties *properties)
{
    ENTER("cuMemPoolCreate");
    if (!FAKE_POOLS) return 801;
    int other = properties->security != NULL || properties->most != 0 || properties->usage != 0;
    for (int i = 0; i < 54; i++) other |= properties->zero[i] != 0;
    if (properties->type != 1 || properties->handles != 0 || properties->location != 1 || other) return INVALID_VALUE;
    struct pool *pool = calloc(1, sizeof *pool);
    pool->alive = 1;
    pool->next = pools;
    pools = pool;
    fake_counts[POOLS]++;
    *handle = pool;
    return SUCCESS;
}

static CUresult pool_trim(void *handle, size_t keep)
{
    ENTER("cuMemPoolTrimTo");
    struct pool *pool = pool_of(handle);
    if (pool == NULL) return INVALID_HANDLE;
    for (struct block *block = blocks; block && pool->reserved > keep; block = block->next) {
        if (block->pool != pool || !block->cached) continue;
        block->cached = 0;
        pool->reserved -= block->bytes;
        reserved -= block->bytes;
    }
    return SUCCESS;
}

static CUresult pool_destroy(void *handle)
{
    ENTER("cuMemPoolDestroy");
    struct pool *pool = pool_of(handle);
    if (pool == NULL) return INVALID_HANDLE;
    pool_trim(handle, 0);
    pool->threshold = 0;
    pool->alive = 0;
    fake_counts[POOLS]--;
    return SUCCESS;
}

static CUresult pool_set(void *handle, int attribute, void *value)
{
    ENTER("cuMemPoolSetAttribute");
    struct pool *pool = pool_of(handle);
    if (pool == NULL || attribute != 4) return INVALID_VALUE;
    pool->threshold = *(uint64_t *)value;
    return SUCCESS;
}

static CUresult pool_get(void *handle, int attribute, uint64_t *value)
{
    ENTER("cuMemPoolGetAttribute");
    struct pool *pool = pool_of(handle);
    if (pool == NULL || attribute < 4 || attribute > 8) return INVALID_VALUE;
    const uint64_t values[] = { pool->threshold, pool->reserved, pool->reserved_high, pool->used, pool->used_high };
    *value = values[attribute - 4];
    return SUCCESS;
}

static CUresult alloc_from_pool(uint64_t *address, size_t bytes, void *handle, void *queue)
{
    ENTER("cuMemAllocFromPoolAsync");
    BESIDE_CAPTURES(NULL);
    struct pool *pool = pool_of(handle);
    struct stream *stream = stream_of(queue);
    if (pool == NULL || stream == NULL || bytes == 0) return INVALID_VALUE;
    /* It would become a node of the graph. */
    if (captured_by(stream)) { fake_counts[MISUSED]++; return INVALID_VALUE; }
    struct block *reused = blocks;
    while (reused && !(reused->pool == pool && reused->cached && reused->bytes == bytes)) reused = reused->next;
    if (reused) {
        reused->cached = 0;
    } else {
        if (bytes > FAKE_CAPACITY - reserved) return OUT_OF_MEMORY;
        reserved += bytes;
        pool->reserved += bytes;
        if (pool->reserved > pool->reserved_high) pool->reserved_high = pool->reserved;
    }
    struct block *block = new_block(bytes, UNBORN);
    block->pool = pool;
    pool->used += bytes;
    if (pool->used > pool->used_high) pool->used_high = pool->used;
    fake_counts[ALLOCATED]++;
    *address = block->at;
    return enqueue(stream, (struct op){ .kind = BIRTH, .to = block->at, .bytes = bytes });
}

static CUresult free_async(uint64_t address, void *queue)
{
    ENTER("cuMemFreeAsync");
    BESIDE_CAPTURES(NULL);
    struct stream *stream = stream_of(queue);
    struct block *block = block_of(address, 1);
    int wrong = block == NULL || block->at != address || block->pool == NULL || block->freed;
    if (stream == NULL || wrong || captured_by(stream)) { fake_counts[MISUSED]++; return INVALID_VALUE; }
    block->freed = 1;
    fake_counts[ALLOCATED]--;
    return enqueue(stream, (struct op){ .kind = DEATH, .to = block->at, .bytes = block->bytes });
}

static CUresult mem_alloc(uint64_t *address, size_t bytes)
{
    ENTER("cuMemAlloc");
    BESIDE_CAPTURES(NULL);
    if (bytes == 0) return INVALID_VALUE;
    if (bytes > FAKE_CAPACITY - reserved) return OUT_OF_MEMORY;
    reserved += bytes;
    fake_counts[ALLOCATED]++;
    *address = new_block(bytes, LIVE)->at;
    return SUCCESS;
}

static CUresult mem_free(uint64_t address)
{
    ENTER("cuMemFree");
    BESIDE_CAPTURES(NULL);
    struct block *block = block_of(address, 1);
    int wrong = block == NULL || block->at != address || block->host || block->pool || block->state != LIVE;
    if (wrong || in_use(block)) { fake_counts[MISUSED]++; return INVALID_VALUE; }
    bury(block);
    reserved -= block->bytes;
    fake_counts[ALLOCATED]--;
    return SUCCESS;
}

static CUresult host_alloc(void **memory, size_t bytes, unsigned flags)
{
    ENTER("cuMemHostAlloc");
    BESIDE_CAPTURES(NULL);
    if (bytes == 0 || flags > 7) return INVALID_VALUE;
    struct block *block = bytes > FAKE_CAPACITY ? NULL : new_block(bytes, LIVE);
    if (block == NULL) return OUT_OF_MEMORY;
    block->host = 1;
    block->flags = flags;
    fake_counts[PINNED]++;
    *memory = (void *)(uintptr_t)block->at;
    return SUCCESS;
}

/* The real one waits for the device by itself, which nobody has promised. */
static CUresult host_free(void *memory)
{
    ENTER("cuMemFreeHost");
    BESIDE_CAPTURES(NULL);
    struct block *block = block_of((uint64_t)(uintptr_t)memory, 1);
    if (block == NULL || !block->host || block->state != LIVE || in_use(block)) { fake_counts[MISUSED]++; return INVALID_VALUE; }
    bury(block);
    fake_counts[PINNED]--;
    return SUCCESS;
}

static CUresult mem_info(size_t *available, size_t *total)
{
    ENTER("cuMemGetInfo");
    *available = FAKE_CAPACITY - reserved;
    *total = FAKE_CAPACITY;
    return SUCCESS;
}

static CUresult pointer_attribute(uint64_t *value, int attribute, uint64_t address)
{
    ENTER("cuPointerGetAttribute");
    struct block *block = block_of(address, 1);
    if (attribute != 3 || block == NULL) return INVALID_VALUE;
    /* Another address on the device's side where the memory is write-combined. */
    *value = address + (block->flags & 4 ? (uint64_t)1 << 46 : 0);
    return SUCCESS;
}

/* Pageable memory is read before the call returns, page-locked memory when the copy's turn comes. */
static CUresult to_device(uint64_t to, const void *from, size_t bytes, void *queue)
{
    ENTER("cuMemcpyHtoDAsync");
    struct stream *stream = stream_of(queue);
    if (stream == NULL) return INVALID_HANDLE;
    struct op op = { .kind = COPY, .to = to, .from = (uint64_t)(uintptr_t)from, .bytes = bytes };
    if (block_of(op.from, bytes) == NULL) memcpy(op.staged = malloc(bytes), from, bytes);
    return enqueue(stream, op);
}

/* Pageable memory is written before the call returns. */
static CUresult to_host(void *to, uint64_t from, size_t bytes, void *queue)
{
    ENTER("cuMemcpyDtoHAsync");
    struct stream *stream = stream_of(queue);
    if (stream == NULL) return INVALID_HANDLE;
    uint64_t target = (uint64_t)(uintptr_t)to;
    if (block_of(target, bytes) || captured_by(stream))
        return enqueue(stream, (struct op){ .kind = COPY, .to = target, .from = from, .bytes = bytes });
    run(stream, NULL, 0);
    unsigned char *source = reach(from, bytes);
    if (source) memcpy(to, source, bytes);
    return SUCCESS;
}

static CUresult on_device(uint64_t to, uint64_t from, size_t bytes, void *queue)
{
    ENTER("cuMemcpyDtoDAsync");
    struct stream *stream = stream_of(queue);
    if (stream == NULL) return INVALID_HANDLE;
    return enqueue(stream, (struct op){ .kind = COPY, .to = to, .from = from, .bytes = bytes });
}

static CUresult fill8(uint64_t to, unsigned char value, size_t count, void *queue)
{
    ENTER("cuMemsetD8Async");
    struct stream *stream = stream_of(queue);
    if (stream == NULL) return INVALID_HANDLE;
    return enqueue(stream, (struct op){ .kind = FILL8, .to = to, .bytes = count, .value = value });
}

static CUresult fill32(uint64_t to, unsigned value, size_t count, void *queue)
{
    ENTER("cuMemsetD32Async");
    struct stream *stream = stream_of(queue);
    if (stream == NULL) return INVALID_HANDLE;
    if (to % 4 != 0) return INVALID_VALUE;
    return enqueue(stream, (struct op){ .kind = FILL32, .to = to, .bytes = 4 * count, .value = value });
}

#define MEMORY_ENTRIES \
    { "cuMemGetInfo", 3020, (void *)mem_info }, \
    { "cuMemAlloc", 3020, (void *)mem_alloc }, \
    { "cuMemFree", 3020, (void *)mem_free }, \
    { "cuMemHostAlloc", 2020, (void *)host_alloc }, \
    { "cuMemFreeHost", 2000, (void *)host_free }, \
    { "cuMemPoolCreate", 11020, (void *)pool_create }, \
    { "cuMemPoolDestroy", 11020, (void *)pool_destroy }, \
    { "cuMemPoolTrimTo", 11020, (void *)pool_trim }, \
    { "cuMemPoolSetAttribute", 11020, (void *)pool_set }, \
    { "cuMemPoolGetAttribute", 11020, (void *)pool_get }, \
    { "cuMemAllocFromPoolAsync", 11020, (void *)alloc_from_pool }, \
    { "cuMemFreeAsync", 11020, (void *)free_async }, \
    { "cuPointerGetAttribute", 4000, (void *)pointer_attribute }, \
    { "cuMemcpyHtoDAsync", 3020, (void *)to_device }, \
    { "cuMemcpyDtoHAsync", 3020, (void *)to_host }, \
    { "cuMemcpyDtoDAsync", 3020, (void *)on_device }, \
    { "cuMemsetD8Async", 3020, (void *)fill8 }, \
    { "cuMemsetD32Async", 3020, (void *)fill32 },
