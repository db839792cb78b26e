// A grid that stays: one block dispatches, the others work. See resident_records.cuh for what they go by.
//
// Nothing here waits for ever. The dispatcher ends the grid when it has been idle for long enough, or when the host says so; a worker
// that waits for another one longer than the watchdog allows reports that and ends the grid, and so does a kernel that waits for it.
#pragma once

#include "resident_records.cuh"

namespace kasmina::resident {

// Stores and loads that other threads of the device, or the host, go by.
__device__ __forceinline__ uint64_t acquire(const uint64_t* at)
{
    uint64_t value;
    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(__cvta_generic_to_global(at)) : "memory");
    return value;
}

__device__ __forceinline__ uint32_t acquire(const uint32_t* at)
{
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(__cvta_generic_to_global(at)) : "memory");
    return value;
}

__device__ __forceinline__ void release(uint64_t* at, uint64_t value)
{
    asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(__cvta_generic_to_global(at)), "l"(value) : "memory");
}

__device__ __forceinline__ uint64_t acquire_from_host(const uint64_t* at)
{
    uint64_t value;
    asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(__cvta_generic_to_global(at)) : "memory");
    return value;
}

__device__ __forceinline__ void release_to_host(uint64_t* at, uint64_t value)
{
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(__cvta_generic_to_global(at)), "l"(value) : "memory");
}

// Adds 1 after everything that this thread, and those before it at a barrier, have written; answers what was there.
__device__ __forceinline__ uint32_t arrive(uint32_t* at)
{
    uint32_t before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(__cvta_generic_to_global(at)) : "memory");
    return before;
}

__device__ __forceinline__ uint64_t nanoseconds()
{
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
    return now;
}

// Waits by asking again, at first as fast as it can, then with pauses, so that the memory is not kept busy by those who wait.
class Patience {
public:
    __device__ __forceinline__ void pause()
    {
        if (++asked_ > kEager) {
            __nanosleep(asked_ < kTired ? 32 : 256);
        }
    }

    // Whether `limit` nanoseconds have gone since the first time that this was asked; it looks at the clock now and then.
    __device__ __forceinline__ bool is_over(uint64_t limit)
    {
        if (asked_ % 64 != 63) {
            return false;
        }
        const uint64_t now = nanoseconds();
        if (begun_ == 0) {
            begun_ = now;
        }
        return now - begun_ > limit;
    }

private:
    static constexpr uint32_t kEager = 64;
    static constexpr uint32_t kTired = 4096;

    uint32_t asked_ = 0;
    uint64_t begun_ = 0;
};

__device__ __forceinline__ void report_fault(const ResidentParams& p, Fault fault, uint64_t number)
{
    release_to_host(&p.report->fault, number << 8 | static_cast<uint64_t>(fault));
    release(&p.control->abort, 1);
}

// One thread: from the mailbox and the ring to the board.
class Dispatcher {
public:
    __device__ __forceinline__ Dispatcher(const ResidentParams& p, uint64_t* board_of) : p_(p), c_(*p.control), board_of_(board_of) {}

    __device__ __forceinline__ void run()
    {
        next_ = c_.next[p_.generation % 2];
        mail_ = first_mail_ = c_.mail;
        answered_ = c_.answered;
        uint64_t idle_since = nanoseconds();
        uint32_t rounds = 0;
        while (true) {
            // One look at the host: each is a way over the bus.
            const uint64_t word = acquire_from_host(&p_.mailbox->word);
            const uint64_t tail = word >> kStopBits;
            const Stop stop = static_cast<Stop>(word & ((1u << kStopBits) - 1));
            const bool room = next_ - acquire(&c_.completed) < kBoard;
            const bool mail = room && mail_ < tail;
            const bool asked = room && acquire(&c_.ring[answered_ % kBoard].number) == answered_ + 1;
            // In turn, where both have something: neither waits for the other's end.
            if (asked && (!mail || mail_last_)) {
                take_request();
            } else if (mail) {
                take_mail();
            }
            mail_last_ = mail && !(asked && mail_last_);
            const bool busy = mail || asked;
            if (acquire(&c_.abort) != 0) {
                break;
            }
            if (busy) {
                rounds = 0;
                continue;
            }
            const bool through = acquire(&c_.completed) == next_;
            if (stop == Stop::Drain && through && mail_ == tail) {
                break;
            }
            if (!through || rounds++ == 0) {
                idle_since = nanoseconds();
            } else if (nanoseconds() - idle_since > p_.idle_ns) {
                break;
            }
        }
        c_.next[(p_.generation + 1) % 2] = next_;
        c_.mail = mail_;
        c_.answered = answered_;
        c_.stop_at = next_;
        release(&c_.stopped, p_.generation);
        release_to_host(&p_.report->ended, p_.generation);
    }

private:
    __device__ __forceinline__ void take_mail()
    {
        const volatile Mail& mail = p_.mailbox->slots[mail_ % kBoard];
        const Step* step = mail.step;
        const uint64_t wanted = mail.after;
        uint64_t after = 0;
        if (wanted > first_mail_ && mail_ - wanted < kBoard) {
            // Those of earlier grids are done, and so are those that have left the board.
            after = board_of_[(wanted - 1) % kBoard] + 1;
        }
        board_of_[mail_ % kBoard] = next_;
        ++mail_;
        put(step, after, nullptr, 0);
    }

    __device__ __forceinline__ void take_request()
    {
        Request& request = c_.ring[answered_ % kBoard];
        ++answered_;
        put(request.step, next_, &request.done, answered_);
        release_to_host(&p_.report->answered, answered_);
    }

    __device__ __forceinline__ void put(const Step* prepared, uint64_t after, uint64_t* done, uint64_t ring)
    {
        Step& step = *const_cast<Step*>(prepared);
        Entry& entry = c_.board[next_ % kBoard];
        entry.items = step.items;
        entry.waits = step.waits;
        entry.counters = step.counters;
        entry.count = step.count;
        entry.blocks = step.blocks;
        entry.offset = step.offset;
        entry.run = ++step.run;
        entry.after = after;
        entry.mailbox = mail_;
        entry.done = done;
        entry.ring = ring;
        ++next_;
        release(&entry.number, next_);
    }

    const ResidentParams& p_;
    Control& c_;
    uint64_t* board_of_;  // numbers on the board of the mailbox's latest steps
    uint64_t next_ = 0;
    uint64_t mail_ = 0;
    uint64_t first_mail_ = 0;
    uint64_t answered_ = 0;
    bool mail_last_ = false;
};

template <class T>
__device__ __forceinline__ void forward_block(const Item& item, uint32_t block)
{
    using stream::Mode;
    using stream::Telemetry;
    const stream::ForwardParams& p = item.params.forward;
    switch (item.counting) {
    case Telemetry::Off: stream::forward_async<T, Telemetry::Off, Mode::Compute>(p, block); break;
    case Telemetry::Packet: stream::forward_async<T, Telemetry::Packet, Mode::Compute>(p, block); break;
    case Telemetry::Column: stream::forward_async<T, Telemetry::Column, Mode::Compute>(p, block); break;
    }
}

template <class T>
__device__ __forceinline__ void backward_block(const Item& item, uint32_t block)
{
    using stream::Telemetry;
    const stream::BackwardParams& p = item.params.backward;
    switch (item.counting) {
    case Telemetry::Off: stream::backward_async<T, Telemetry::Off>(p, block); break;
    case Telemetry::Packet: stream::backward_async<T, Telemetry::Packet>(p, block); break;
    case Telemetry::Column: stream::backward_async<T, Telemetry::Column>(p, block); break;
    }
}

// One block of an item, by all threads; nobody else's memory in the block is in use before or after.
__device__ __forceinline__ void do_block(const Item& item, uint32_t block, double* scratch)
{
    switch (item.kind) {
    case ItemKind::Forward:
        switch (item.type) {
        case ItemType::F32: forward_block<float>(item, block); break;
        case ItemType::F16: forward_block<f16>(item, block); break;
        case ItemType::Bf16: forward_block<bf16>(item, block); break;
        }
        break;
    case ItemKind::Backward:
        switch (item.type) {
        case ItemType::F32: backward_block<float>(item, block); break;
        case ItemType::F16: backward_block<f16>(item, block); break;
        case ItemType::Bf16: backward_block<bf16>(item, block); break;
        }
        break;
    case ItemKind::Finalize: {
        const finalizing::FinalizeParams& p = item.params.finalize;
        finalizing::finalize(finalizing::Block{scratch}, p, p.jobs[block]);
        break;
    }
    case ItemKind::CollectChunks: {
        const CollectParams& p = item.params.collect;
        stream::collect_pieces(p.geometry, static_cast<ChunkStats*>(p.accumulators), static_cast<ChunkStats*>(p.totals), block, item.blocks,
                               kBlockThreads);
        break;
    }
    case ItemKind::CollectGradients: {
        const CollectParams& p = item.params.collect;
        stream::collect_pieces(p.geometry, static_cast<GradientStats*>(p.accumulators), static_cast<GradientStats*>(p.totals), block,
                               item.blocks, kBlockThreads);
        break;
    }
    }
}

// The columns that a block of an item reads or writes.
struct Columns {
    uint32_t first;
    uint32_t count;
};

__device__ __forceinline__ Columns columns_of(const Item& item, uint32_t block)
{
    if (item.kind == ItemKind::Forward || item.kind == ItemKind::Backward) {
        const stream::Geometry& g = item.kind == ItemKind::Forward ? item.params.forward.geometry : item.params.backward.geometry;
        const stream::TileSpan span = stream::tile_span(g, block % g.tiles);
        return {span.first, span.columns};
    }
    if (item.kind == ItemKind::Finalize) {
        const SeedJob& job = item.params.finalize.jobs[block];
        return {job.first_column, job.columns};
    }
    return {0, 0xffffffffu};
}

// Whether it holds for all threads that work.
__device__ __forceinline__ bool all_of_block(bool one)
{
    uint32_t all;
    __syncwarp();
    asm volatile("{\n\t.reg .pred own, every;\n\tsetp.ne.u32 own, %1, 0;\n\tbar.red.and.pred every, 1, %2, own;\n\tselp.u32 %0, 1, 0, every;\n\t}"
                 : "=r"(all)
                 : "r"(static_cast<uint32_t>(one)), "n"(kBlockThreads)
                 : "memory");
    return all != 0;
}

// The threads of a block that work, which go through board and steps together.
class Worker {
public:
    struct Shared {
        Item items[2];
        Entry entry;
        double scratch[finalizing::kThreads / finalizing::kWarpThreads];
    };

    __device__ __forceinline__ Worker(const ResidentParams& p, Shared& shared, uint32_t rank) : p_(p), c_(*p.control), shared_(shared), rank_(rank) {}

    __device__ __forceinline__ void run(uint64_t number)
    {
        for (;; ++number) {
            if (!next_entry(number)) {
                break;
            }
            const uint32_t own = rank_ >= shared_.entry.offset ? rank_ - shared_.entry.offset : rank_ + p_.workers - shared_.entry.offset;
            if (own < shared_.entry.blocks && !do_step(number, own)) {
                break;
            }
            finish(number);
        }
        claim_merge();
        post_merge({MergeKind::Quit});
    }

private:
    // Waits until the step of this number is on the board, and whoever must come before it is done.
    __device__ __forceinline__ bool next_entry(uint64_t number)
    {
        bool there = true;
        if (threadIdx.x == 0) {
            Entry& entry = c_.board[number % kBoard];
            Patience patience;
            while (acquire(&entry.number) != number + 1) {
                if (acquire(&c_.stopped) == p_.generation && c_.stop_at == number) {
                    there = false;
                    break;
                }
                if (acquire(&c_.abort) != 0) {
                    there = false;
                    break;
                }
                patience.pause();
            }
            if (there) {
                shared_.entry = entry;
                Patience before;
                while (there && acquire(&c_.completed) < entry.after) {
                    there = goes_on(before, number);
                }
            }
        }
        return all_of_block(there);
    }

    __device__ __forceinline__ bool goes_on(Patience& patience, uint64_t number) const
    {
        patience.pause();
        if (patience.is_over(p_.watchdog_ns)) {
            report_fault(p_, Fault::WorkerWaited, number);
            return false;
        }
        return acquire(&c_.abort) == 0;
    }

    // All items' blocks own, own + workers, …
    __device__ __forceinline__ bool do_step(uint64_t number, uint32_t own)
    {
        const Entry& entry = shared_.entry;
        fetch(0);
        for (uint32_t i = 0; i < entry.count; ++i) {
            asm volatile("cp.async.wait_group 0;" ::: "memory");
            // The item is there, and what the item before it wrote.
            block_barrier();
            if (i + 1 < entry.count) {
                fetch(i + 1);
            }
            const Item& item = shared_.items[i % 2];
            for (uint32_t block = own; block < item.blocks; block += p_.workers) {
                if (item.waits != 0 && !wait_for_others(item, block, number)) {
                    return false;
                }
                do_block(item, block, shared_.scratch);
                if (block + p_.workers < item.blocks || item.counter != kNoCounter) {
                    block_barrier();
                }
                if (item.counter != kNoCounter) {
                    // Whoever waits may want the statistics, too.
                    drain_merges();
                }
                if (item.counter != kNoCounter && threadIdx.x == 0) {
                    arrive(entry.counters + item.counter + counter_of(item, block));
                }
            }
        }
        return true;
    }

    __device__ __forceinline__ void fetch(uint32_t i) const
    {
        // 256 bytes, past the first-level cache.
        if (threadIdx.x < sizeof(Item) / 16) {
            const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(&shared_.items[i % 2])) + threadIdx.x * 16;
            const uint8_t* from = reinterpret_cast<const uint8_t*>(shared_.entry.items + i) + threadIdx.x * 16;
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(__cvta_generic_to_global(from)) : "memory");
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }

    static __device__ __forceinline__ uint32_t counter_of(const Item& item, uint32_t block)
    {
        return item.kind == ItemKind::Forward   ? block % item.params.forward.geometry.tiles
            : item.kind == ItemKind::Backward ? block % item.params.backward.geometry.tiles
                                              : 0;
    }

    // Until the tiles of earlier items that have columns of this block are done in this run.
    __device__ __forceinline__ bool wait_for_others(const Item& item, uint32_t block, uint64_t number) const
    {
        const Entry& entry = shared_.entry;
        const Columns columns = columns_of(item, block);
        bool there = true;
        for (uint32_t w = 0; w < item.waits; ++w) {
            const Wait wait = item.waits <= kOwnWaits ? item.own[w] : entry.waits[item.first_wait + w];
            uint32_t from = 0, to = wait.counters;
            if (wait.tile_columns != 0 && columns.count != 0xffffffffu) {
                from = min(columns.first / wait.tile_columns, wait.counters);
                to = min((columns.first + columns.count - 1) / wait.tile_columns + 1, wait.counters);
            }
            // They may have gone round.
            const uint32_t target = wait.arrivals * entry.run;
            for (uint32_t i = from + threadIdx.x; i < to; i += kBlockThreads) {
                Patience patience;
                while (there && static_cast<int32_t>(acquire(entry.counters + wait.counter + i) - target) < 0) {
                    there = goes_on(patience, number);
                }
            }
        }
        return all_of_block(there);
    }

    // This worker is through with a step; the last one says so to whoever waits.
    __device__ __forceinline__ void finish(uint64_t number)
    {
        block_barrier();
        drain_merges();
        if (threadIdx.x != 0) {
            return;
        }
        uint32_t* finished = &c_.finished[number % kBoard];
        if (arrive(finished) + 1 == p_.workers) {
            *finished = 0;
            const Entry& entry = shared_.entry;
            if (entry.done != nullptr) {
                release(entry.done, entry.ring);
            }
            // What the host reads after this, it reads by copies: everything before is there.
            release_to_host(&p_.report->from_mailbox, entry.mailbox);
            release(&c_.completed, number + 1);
        }
    }

    const ResidentParams& p_;
    Control& c_;
    Shared& shared_;
    uint32_t rank_;
};

}  // namespace kasmina::resident
