/* A CUDA driver that plays one scenario, chosen by FAKE_* macros when it is compiled. Enough of the driver API for the
 * loader, the devices and the contexts; every handle that it gives out is counted, and tests ask for the counts. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef FAKE_VERSION
#define FAKE_VERSION 13000
#endif
#ifndef FAKE_INIT
#define FAKE_INIT 0
#endif
#ifndef FAKE_DEVICES
#define FAKE_DEVICES 1
#endif
#ifndef FAKE_ATTRIBUTE
#define FAKE_ATTRIBUTE 0
#endif
#ifndef FAKE_MAJOR
#define FAKE_MAJOR 9
#endif
#ifndef FAKE_MINOR
#define FAKE_MINOR 0
#endif
#ifndef FAKE_ALLOC
#define FAKE_ALLOC 0
#endif
#ifndef FAKE_COPY
#define FAKE_COPY 0
#endif
#ifndef FAKE_MISSING
#define FAKE_MISSING "none"
#endif

#define SUCCESS 0
#define INVALID_VALUE 1
#define INVALID_CONTEXT 201
#define NOT_FOUND 500

typedef int CUresult;

/* Counts, read by the tests through dlsym: resolutions, contexts, stack entries, allocations, releases too many. */
int fake_counts[5];
enum { RESOLVED, RETAINED, PUSHED, ALLOCATED, MISUSED };

static char context_token;

static CUresult driver_get_version(int *version) { *version = FAKE_VERSION; return SUCCESS; }
static CUresult init(unsigned flags) { return flags == 0 ? FAKE_INIT : INVALID_VALUE; }
static CUresult device_get_count(int *count) { *count = FAKE_DEVICES; return SUCCESS; }

static CUresult device_get(int *device, int ordinal)
{
    if (ordinal < 0 || ordinal >= FAKE_DEVICES) return 101;
    *device = ordinal;
    return SUCCESS;
}

static CUresult device_get_name(char *name, int length, int device)
{
    (void)device;
    /* As long as the room allows, so that a reader that trusts the end to be marked reads past it. */
    memset(name, 'G', (size_t)length);
#ifndef FAKE_LONG_NAME
    strncpy(name, "Fake GPU", (size_t)length);
#endif
    return SUCCESS;
}

static CUresult device_get_attribute(int *value, int attribute, int device)
{
    (void)device;
    if (FAKE_ATTRIBUTE != 0) return FAKE_ATTRIBUTE;
    switch (attribute) {
    case 16: *value = 132; return SUCCESS;
    case 38: *value = 60 << 20; return SUCCESS;
    case 75: *value = FAKE_MAJOR; return SUCCESS;
    case 76: *value = FAKE_MINOR; return SUCCESS;
    case 97: *value = 232448; return SUCCESS;
#ifdef FAKE_NO_TENSOR_MAPS
    case 127: *value = 0; return SUCCESS;
#else
    case 127: *value = FAKE_MAJOR >= 9; return SUCCESS;
#endif
    default: return INVALID_VALUE;
    }
}

static CUresult device_total_mem(size_t *bytes, int device) { (void)device; *bytes = (size_t)1 << 37; return SUCCESS; }

static CUresult device_get_uuid(unsigned char *uuid, int device)
{
    for (int i = 0; i < 16; i++) uuid[i] = (unsigned char)(i + device);
    return SUCCESS;
}

static CUresult retain(void **context, int device) { (void)device; fake_counts[RETAINED]++; *context = &context_token; return SUCCESS; }

static CUresult release(int device)
{
    (void)device;
    if (fake_counts[RETAINED] == 0) { fake_counts[MISUSED]++; return INVALID_CONTEXT; }
    fake_counts[RETAINED]--;
    return SUCCESS;
}

static CUresult push(void *context)
{
    if (context != &context_token) { fake_counts[MISUSED]++; return INVALID_CONTEXT; }
    fake_counts[PUSHED]++;
    return SUCCESS;
}

static CUresult pop(void **context)
{
    if (fake_counts[PUSHED] == 0) { fake_counts[MISUSED]++; return INVALID_CONTEXT; }
    fake_counts[PUSHED]--;
    *context = &context_token;
    return SUCCESS;
}

static CUresult get_current(void **context) { *context = fake_counts[PUSHED] ? &context_token : NULL; return SUCCESS; }

static CUresult mem_alloc(uint64_t *address, size_t bytes)
{
    void *memory;
    if (fake_counts[PUSHED] == 0) return INVALID_CONTEXT;
    if (FAKE_ALLOC != 0) return FAKE_ALLOC;
    if (bytes == 0 || (memory = malloc(bytes)) == NULL) return INVALID_VALUE;
    fake_counts[ALLOCATED]++;
    *address = (uint64_t)(uintptr_t)memory;
    return SUCCESS;
}

static CUresult mem_free(uint64_t address)
{
    if (fake_counts[PUSHED] == 0) return INVALID_CONTEXT;
    if (address == 0) { fake_counts[MISUSED]++; return INVALID_VALUE; }
    free((void *)(uintptr_t)address);
    fake_counts[ALLOCATED]--;
    return SUCCESS;
}

static CUresult to_device(uint64_t to, const void *from, size_t bytes)
{
    if (FAKE_COPY != 0) return FAKE_COPY;
    memcpy((void *)(uintptr_t)to, from, bytes);
    return SUCCESS;
}

static CUresult to_host(void *to, uint64_t from, size_t bytes) { memcpy(to, (void *)(uintptr_t)from, bytes); return SUCCESS; }
static CUresult set(uint64_t to, unsigned char value, size_t bytes) { memset((void *)(uintptr_t)to, value, bytes); return SUCCESS; }

/* There to be found; what it would encode is no business of this driver. */
static CUresult tensor_map_encode(void) { return 801; }

struct entry { const char *name; int since; void *function; };

static const struct entry table[] = {
    { "cuDriverGetVersion", 2020, (void *)driver_get_version },
    { "cuInit", 2000, (void *)init },
    { "cuDeviceGetCount", 2000, (void *)device_get_count },
    { "cuDeviceGet", 2000, (void *)device_get },
    { "cuDeviceGetName", 2000, (void *)device_get_name },
    { "cuDeviceGetAttribute", 2000, (void *)device_get_attribute },
    { "cuDeviceTotalMem", 3020, (void *)device_total_mem },
    { "cuDeviceGetUuid", 11040, (void *)device_get_uuid },
    { "cuDevicePrimaryCtxRetain", 7000, (void *)retain },
    { "cuDevicePrimaryCtxRelease", 11000, (void *)release },
    { "cuCtxGetCurrent", 4000, (void *)get_current },
    { "cuCtxPushCurrent", 4000, (void *)push },
    { "cuCtxPopCurrent", 4000, (void *)pop },
    { "cuMemAlloc", 3020, (void *)mem_alloc },
    { "cuMemFree", 3020, (void *)mem_free },
    { "cuMemcpyHtoD", 3020, (void *)to_device },
    { "cuMemcpyDtoH", 3020, (void *)to_host },
    { "cuMemsetD8", 3020, (void *)set },
    { "cuTensorMapEncodeTiled", 12000, (void *)tensor_map_encode },
};

/* A driver from before CUDA 12.0 has the function under its first name alone. */
#ifdef FAKE_NO_BOOTSTRAP
#define cuGetProcAddress_v2 cuGetProcAddress
#endif

CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
    (void)flags;
    *function = NULL;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(name, table[i].name) != 0 || strcmp(name, FAKE_MISSING) == 0) continue;
        if (version < table[i].since) break;
        fake_counts[RESOLVED]++;
        *function = table[i].function;
        if (status) *status = 0;
        return SUCCESS;
    }
    if (status) *status = 1;
    return NOT_FOUND;
}
