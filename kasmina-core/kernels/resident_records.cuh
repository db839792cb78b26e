// What a resident grid and the host tell each other. The Rust side has the same structs (src/cuda/executor/records.rs).
//
// A *step* is a list of items that lies ready in device memory, an item what one launch would do: some blocks, each of which any
// worker can take. The host puts steps into a mailbox in page-locked memory, kernels of other streams into a ring in device memory. The
// dispatcher, one block of the grid, takes them from both and gives them numbers, one sequence for all workers: the board. Every worker
// goes through the board in order and through a step's items in order, and does the blocks that are its own; so whatever waits,
// waits for something earlier, and nothing can wait in a circle.
#pragma once

#include "seed_finalize.cuh"
#include "stream_backward.cuh"
#include "stream_forward.cuh"

namespace kasmina::resident {

// Steps that are on the board, in the mailbox, or in the ring of other kernels, at most.
constexpr uint32_t kBoard = 64;

enum class ItemKind : uint32_t { Forward = 0, Backward = 1, Finalize = 2, CollectChunks = 3, CollectGradients = 4 };

enum class ItemType : uint32_t { F32 = 0, F16 = 1, Bf16 = 2 };

// A wait for an earlier item of the step that is cut in another way.
struct Wait {
    uint32_t counter;       // its first counter
    uint32_t counters;      // one a tile, or one for all
    uint32_t arrivals;      // at each of them in one run
    uint32_t tile_columns;  // columns of a tile; 0: all counters are waited for
};
static_assert(sizeof(Wait) == 16, "as in Rust");

struct CollectParams {
    void* accumulators;
    void* totals;
    stream::Geometry geometry;
};

constexpr uint32_t kOwnWaits = 2;
constexpr uint32_t kNoCounter = 0xffffffffu;

struct alignas(16) Item {
    ItemKind kind;
    ItemType type;
    stream::Telemetry counting;
    uint32_t blocks;
    uint32_t counter;     // its first counter; kNoCounter where nobody waits for it
    uint32_t waits;
    uint32_t first_wait;  // in the step's list, where they are more than kOwnWaits
    uint32_t padding;
    Wait own[kOwnWaits];
    union Params {
        stream::ForwardParams forward;
        stream::BackwardParams backward;
        finalizing::FinalizeParams finalize;
        CollectParams collect;
        uint8_t bytes[192];
    } params;
};
static_assert(sizeof(Item) == 256, "as in Rust");

// A step in device memory.
struct Step {
    const Item* items;
    const Wait* waits;
    uint32_t* counters;  // they only grow, from run to run
    uint32_t count;
    uint32_t blocks;     // the most that an item has
    uint32_t offset;     // the worker that does block 0
    uint32_t run;        // how often it was put on the board; the dispatcher's
};
static_assert(sizeof(Step) == 40, "as in Rust");

// What the host asks for: page-locked memory that it writes.
struct Mail {
    const Step* step;
    uint64_t after;  // the mailbox's step, counted from 1, that is done before it begins; 0 for none
};

enum class Stop : uint32_t { No = 0, Drain = 1 };
constexpr uint32_t kStopBits = 2;

struct Mailbox {
    uint64_t word;  // steps put in so far, and below that a Stop
    uint64_t unused[7];
    Mail slots[kBoard];
};
static_assert(sizeof(Mailbox) == 64 + 16 * kBoard, "as in Rust");

// What the grid tells the host: page-locked memory that the device writes.
struct Report {
    uint64_t from_mailbox;  // steps of the mailbox that are done
    uint64_t ended;         // the generation of the latest grid that has ended, or is about to
    uint64_t asked;         // steps that other kernels have asked for
    uint64_t fault;         // a Fault, and the board's number above its lowest byte
    uint64_t answered;      // steps of other kernels that are on the board
    uint64_t unused[3];
};
static_assert(sizeof(Report) == 64, "as in Rust");

enum class Fault : uint32_t {
    None = 0,
    WorkerWaited = 1,  // a worker, for longer than the watchdog allows
    KernelWaited = 2,  // a kernel of another stream, for a grid
};

// A step on the board.
struct alignas(16) Entry {
    uint64_t number;  // of the board, plus 1, when everything else is there
    const Item* items;
    const Wait* waits;
    uint32_t* counters;
    uint32_t count;
    uint32_t blocks;
    uint32_t offset;
    uint32_t run;
    uint64_t after;    // steps of the board that are done before it begins
    uint64_t mailbox;  // the mailbox's steps up to and with this one
    uint64_t* done;    // where its number in the ring goes when it is done; null for the mailbox's
    uint64_t ring;
};
static_assert(sizeof(Entry) == 80, "as in Rust");

// A step that a kernel of another stream asks for.
struct Request {
    const Step* step;
    uint64_t number;  // in the ring, plus 1, when it is there
    uint64_t done;    // the same when it is done
    uint64_t padding;
};

struct Control {
    uint64_t next[2];    // number on the board: where a grid of an even and of an odd generation begins; the one before it writes it
    uint64_t mail;       // steps taken from the mailbox; the dispatcher's, kept from grid to grid
    uint64_t asked;      // steps put into the ring
    uint64_t answered;   // steps taken from it; the dispatcher's
    uint64_t completed;
    uint64_t stop_at;    // the workers' last number
    uint64_t stopped;    // the generation that this is meant for
    uint64_t abort;
    uint64_t padding;
    uint32_t finished[kBoard];  // workers that are through with an entry
    Entry board[kBoard];
    Request ring[kBoard];
};
static_assert(sizeof(Control) == 80 + kBoard * (4 + 80 + 32), "as in Rust");

struct ResidentParams {
    Mailbox* mailbox;
    Report* report;
    Control* control;
    uint64_t generation;
    uint64_t idle_ns;
    uint64_t watchdog_ns;
    uint32_t workers;
    uint32_t padding;
};
static_assert(sizeof(ResidentParams) == 56, "as in Rust");

}  // namespace kasmina::resident
