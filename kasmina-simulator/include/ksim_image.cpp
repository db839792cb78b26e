// What every image has once: the table of its kernels. Compiled with each, and never instrumented.
#include "ksim_cuda.h"

namespace ksim {

const Calls* calls;

namespace {
uint32_t slots;
const Entry* entries;
Image image;
}  // namespace

Slot::Slot(uint32_t bytes, uint32_t alignment) : index(slots++), bytes(bytes), alignment(alignment), reserved(0) {}

Registration::Registration(const Entry& entry) : Entry(entry)
{
    next = entries;
    entries = this;
}

}  // namespace ksim

namespace {
#if defined(KSIM_RACES)
constexpr uint32_t kReports = 1;
#else
constexpr uint32_t kReports = 0;
#endif
}  // namespace

// Gives the machine the table, and takes what the machine does for the kernels.
extern "C" __attribute__((visibility("default"))) const ksim::Image* ksim_image(const ksim::Calls* given)
{
    ksim::calls = given;
    ksim::image = {ksim::kVersion, ksim::slots, ksim::entries, kReports};
    return &ksim::image;
}

#if defined(KSIM_RACES)

// What -fsanitize=thread makes of every access to memory. The machine does the rest; there is no other runtime library.

namespace {

using ksim::calls;

// A thread's own stack, and what it sees of itself, is nobody else's business.
inline bool is_private(uintptr_t address)
{
    uintptr_t here;
    __asm__("mov %%rsp, %0" : "=r"(here));
    if (address >> ksim::kStackBits == here >> ksim::kStackBits) return true;
    const ksim::Thread& thread = ksim::self();
    const auto within = [address](const void* begin, size_t bytes) { return address - reinterpret_cast<uintptr_t>(begin) < bytes; };
    return within(&thread, sizeof thread) || within(thread.block, sizeof *thread.block) || within(calls, sizeof *calls)
        || within(&calls, sizeof calls) || within(thread.block->slots, ksim::slots * sizeof(uint32_t));
}

inline void access(const void* at, uint32_t bytes, uint32_t kind, void* from)
{
    const auto address = reinterpret_cast<uintptr_t>(at);
    if (!is_private(address)) calls->access(address, bytes, kind, reinterpret_cast<uint64_t>(from));
}

inline void atomic(const volatile void* at, uint32_t bytes, uint32_t kind, int order, void* from)
{
    const auto address = reinterpret_cast<uintptr_t>(at);
    if (!is_private(address)) calls->atomic(address, bytes, kind, static_cast<uint32_t>(order), reinterpret_cast<uint64_t>(from));
}

// Kinds of access: bits of the machine's.
constexpr uint32_t kRead = 0, kWrite = 1, kVolatile = 2, kUnaligned = 4;
constexpr uint32_t kLoad = 0, kStore = 1, kChange = 2;

}  // namespace

#define KSIM_HOOK extern "C" __attribute__((visibility("hidden")))
#define KSIM_HERE __builtin_return_address(0)

KSIM_HOOK void __tsan_init() {}
KSIM_HOOK void __tsan_func_entry(void*) {}
KSIM_HOOK void __tsan_func_exit() {}
KSIM_HOOK void __tsan_vptr_update(void**, void*) {}
KSIM_HOOK void __tsan_vptr_read(void**) {}

#define KSIM_ACCESS(bytes)                                                                                              \
    KSIM_HOOK void __tsan_read##bytes(void* at) { access(at, bytes, kRead, KSIM_HERE); }                                \
    KSIM_HOOK void __tsan_write##bytes(void* at) { access(at, bytes, kWrite, KSIM_HERE); }                              \
    KSIM_HOOK void __tsan_unaligned_read##bytes(void* at) { access(at, bytes, kRead | kUnaligned, KSIM_HERE); }         \
    KSIM_HOOK void __tsan_unaligned_write##bytes(void* at) { access(at, bytes, kWrite | kUnaligned, KSIM_HERE); }       \
    KSIM_HOOK void __tsan_volatile_read##bytes(void* at) { access(at, bytes, kRead | kVolatile, KSIM_HERE); }           \
    KSIM_HOOK void __tsan_volatile_write##bytes(void* at) { access(at, bytes, kWrite | kVolatile, KSIM_HERE); }         \
    KSIM_HOOK void __tsan_unaligned_volatile_read##bytes(void* at) { access(at, bytes, kRead | kVolatile | kUnaligned, KSIM_HERE); } \
    KSIM_HOOK void __tsan_unaligned_volatile_write##bytes(void* at) { access(at, bytes, kWrite | kVolatile | kUnaligned, KSIM_HERE); }
KSIM_ACCESS(1)
KSIM_ACCESS(2)
KSIM_ACCESS(4)
KSIM_ACCESS(8)
KSIM_ACCESS(16)

KSIM_HOOK void __tsan_read_range(void* at, unsigned long bytes) { access(at, bytes, kRead | kUnaligned, KSIM_HERE); }
KSIM_HOOK void __tsan_write_range(void* at, unsigned long bytes) { access(at, bytes, kWrite | kUnaligned, KSIM_HERE); }

// Copies that the compiler leaves to the library.
extern "C" void* __real_memcpy(void*, const void*, size_t);
extern "C" void* __real_memmove(void*, const void*, size_t);
extern "C" void* __real_memset(void*, int, size_t);
KSIM_HOOK void* __wrap_memcpy(void* to, const void* from, size_t bytes)
{
    access(from, bytes, kRead | kUnaligned, KSIM_HERE);
    access(to, bytes, kWrite | kUnaligned, KSIM_HERE);
    return __real_memcpy(to, from, bytes);
}
KSIM_HOOK void* __wrap_memmove(void* to, const void* from, size_t bytes)
{
    access(from, bytes, kRead | kUnaligned, KSIM_HERE);
    access(to, bytes, kWrite | kUnaligned, KSIM_HERE);
    return __real_memmove(to, from, bytes);
}
KSIM_HOOK void* __wrap_memset(void* to, int value, size_t bytes)
{
    access(to, bytes, kWrite | kUnaligned, KSIM_HERE);
    return __real_memset(to, value, bytes);
}

#define KSIM_ATOMIC(width, type)                                                                                        \
    KSIM_HOOK type __tsan_atomic##width##_load(const volatile type* at, int order)                                      \
    {                                                                                                                   \
        atomic(at, sizeof(type), kLoad, order, KSIM_HERE);                                                              \
        return __atomic_load_n(at, __ATOMIC_ACQUIRE);                                                                   \
    }                                                                                                                   \
    KSIM_HOOK void __tsan_atomic##width##_store(volatile type* at, type value, int order)                               \
    {                                                                                                                   \
        atomic(at, sizeof(type), kStore, order, KSIM_HERE);                                                             \
        __atomic_store_n(at, value, __ATOMIC_RELEASE);                                                                  \
    }                                                                                                                   \
    KSIM_HOOK type __tsan_atomic##width##_fetch_add(volatile type* at, type value, int order)                           \
    {                                                                                                                   \
        atomic(at, sizeof(type), kChange, order, KSIM_HERE);                                                            \
        return __atomic_fetch_add(at, value, __ATOMIC_ACQ_REL);                                                         \
    }                                                                                                                   \
    KSIM_HOOK int __tsan_atomic##width##_compare_exchange_strong(                                                       \
        volatile type* at, type* wanted, type value, int order, int)                                                    \
    {                                                                                                                   \
        atomic(at, sizeof(type), kChange, order, KSIM_HERE);                                                            \
        return __atomic_compare_exchange_n(at, wanted, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);               \
    }                                                                                                                   \
    KSIM_HOOK type __tsan_atomic##width##_compare_exchange_val(volatile type* at, type wanted, type value, int order, int) \
    {                                                                                                                   \
        atomic(at, sizeof(type), kChange, order, KSIM_HERE);                                                            \
        __atomic_compare_exchange_n(at, &wanted, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);                     \
        return wanted;                                                                                                  \
    }
KSIM_ATOMIC(8, uint8_t)
KSIM_ATOMIC(16, uint16_t)
KSIM_ATOMIC(32, uint32_t)
KSIM_ATOMIC(64, uint64_t)

KSIM_HOOK void __tsan_atomic_thread_fence(int order) { calls->thread_fence(static_cast<uint32_t>(order)); }
KSIM_HOOK void __tsan_atomic_signal_fence(int) {}

#endif
