/* A CUDA driver that plays one scenario, chosen by FAKE_* macros when it is compiled and by fake_* calls while it runs.
 * Enough of the driver API for the safe layer. Every handle that it gives out is counted, and tests ask for the counts.
 * Work of streams runs as late as it may (fake_streams.h), so that a wait that is missing shows. */

#define _GNU_SOURCE
#include <pthread.h>
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
#ifndef FAKE_POOLS
#define FAKE_POOLS 1
#endif
/* Bytes of device memory that allocations can have together. */
#ifndef FAKE_CAPACITY
#define FAKE_CAPACITY (1 << 28)
#endif
#ifndef FAKE_MISSING
#define FAKE_MISSING "none"
#endif

#define SUCCESS 0
#define INVALID_VALUE 1
#define OUT_OF_MEMORY 2
#define INVALID_CONTEXT 201
#define INVALID_HANDLE 400
#define NOT_FOUND 500
#define NOT_READY 600
#define CAPTURE_UNSUPPORTED 900
#define CAPTURE_ISOLATION 905
#define CAPTURED_EVENT 907

typedef int CUresult;

/* Counts, read by the tests through dlsym: resolutions, calls of a wrong kind, entries on context stacks, and handles that
 * are out. Their order is that of `Counts` in fake/mod.rs. */
enum { RESOLVED, MISUSED, PUSHED, RETAINED, ALLOCATED, STREAMS, EVENTS, POOLS, PINNED, COUNTS };
int fake_counts[COUNTS];

/* One lock for everything: the tests of threads are about the caller's races, not about this file's. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static int take_lock(void) { return pthread_mutex_lock(&lock); }
static void give_lock(int *held) { (void)held; pthread_mutex_unlock(&lock); }
#define LOCKED __attribute__((cleanup(give_lock), unused)) int lock_held = take_lock()

/* Calls that fail: from the one after `skip` of them on, `times` of them, all where it is negative. "*" is any call. */
struct fault { const char *name; int skip, times; CUresult code; };
static struct fault faults[16];
static int fault_count;
static const char *hidden[16];
static int hidden_count;

void fake_fail(const char *name, int skip, int times, CUresult code)
{
    LOCKED;
    faults[fault_count++] = (struct fault){ strdup(name), skip, times, code };
}

void fake_mend(void) { LOCKED; fault_count = 0; }

/* Takes a function away, before it is asked for. */
void fake_hide(const char *name) { LOCKED; hidden[hidden_count++] = strdup(name); }

static CUresult fault(const char *name)
{
    LOCKED;
    for (int i = 0; i < fault_count; i++) {
        if (strcmp(faults[i].name, name) != 0 && strcmp(faults[i].name, "*") != 0) continue;
        if (faults[i].skip > 0) { faults[i].skip--; continue; }
        if (faults[i].times == 0) continue;
        if (faults[i].times > 0) faults[i].times--;
        return faults[i].code;
    }
    return SUCCESS;
}

#define FAILS(name) do { CUresult failed = fault(name); if (failed != SUCCESS) return failed; } while (0)

/* Contexts of this thread's stack, all of them the one. */
static __thread int depth;
#define HAS_CONTEXT (depth != 0)

/* How a call begins that needs a context. */
#define ENTER(name) \
    LOCKED; \
    if (!HAS_CONTEXT) return INVALID_CONTEXT; \
    FAILS(name)

static char context_token;

static CUresult driver_get_version(int *version) { *version = FAKE_VERSION; return SUCCESS; }
static CUresult init(unsigned flags) { return flags == 0 ? (CUresult)FAKE_INIT : INVALID_VALUE; }
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

/* In fake_launch.h. */
static CUresult launch_attribute(int *value, int attribute);

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
    case 115: *value = FAKE_POOLS; return SUCCESS;
    default: return launch_attribute(value, attribute);
    }
}

static CUresult device_total_mem(size_t *bytes, int device) { (void)device; *bytes = (size_t)1 << 37; return SUCCESS; }

static CUresult device_get_uuid(unsigned char *uuid, int device)
{
    for (int i = 0; i < 16; i++) uuid[i] = (unsigned char)(i + device);
    return SUCCESS;
}

static CUresult retain(void **context, int device)
{
    LOCKED;
    (void)device;
    FAILS("cuDevicePrimaryCtxRetain");
    fake_counts[RETAINED]++;
    *context = &context_token;
    return SUCCESS;
}

static CUresult release(int device)
{
    LOCKED;
    (void)device;
    FAILS("cuDevicePrimaryCtxRelease");
    if (fake_counts[RETAINED] == 0) { fake_counts[MISUSED]++; return INVALID_CONTEXT; }
    /* With the last one go all handles, so none may be out. */
    if (--fake_counts[RETAINED] == 0)
        for (int kind = ALLOCATED; kind < COUNTS; kind++) fake_counts[MISUSED] += fake_counts[kind] != 0;
    return SUCCESS;
}

static CUresult push(void *context)
{
    LOCKED;
    FAILS("cuCtxPushCurrent");
    if (context != &context_token) { fake_counts[MISUSED]++; return INVALID_CONTEXT; }
    fake_counts[PUSHED]++;
    depth++;
    return SUCCESS;
}

static CUresult pop(void **context)
{
    LOCKED;
    if (depth == 0) { fake_counts[MISUSED]++; return INVALID_CONTEXT; }
    fake_counts[PUSHED]--;
    depth--;
    *context = &context_token;
    return SUCCESS;
}

static CUresult get_current(void **context) { *context = depth ? &context_token : NULL; return SUCCESS; }

#include "fake_launch.h"
#include "fake_streams.h"
#include "fake_memory.h"
#include "fake_tensor_map.h"

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
    STREAM_ENTRIES
    MEMORY_ENTRIES
    LAUNCH_ENTRIES
    TENSOR_MAP_ENTRIES
};

/* A driver from before CUDA 12.0 has the function under its first name alone. */
#ifdef FAKE_NO_BOOTSTRAP
#define cuGetProcAddress_v2 cuGetProcAddress
#endif

CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
    LOCKED;
    (void)flags;
    *function = NULL;
    for (int i = 0; i < hidden_count; i++)
        if (strcmp(name, hidden[i]) == 0) { if (status) *status = 1; return NOT_FOUND; }
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
