/* Streams and events of the fake driver; part of fake_driver.c.
 *
 * What is queued runs when somebody waits for it, and no sooner; then the stream that is waited for runs, and of the others
 * just what it waits for. So a copy whose memory nobody has joined to its stream meets memory that is not there yet or is
 * gone already, which counts as misuse, and a host that did not wait reads what was there before. */

enum kind { COPY, FILL8, FILL32, RECORD, WAIT, BIRTH, DEATH, CALL };

/* captured: recorded into the capture of that stream. */
struct event { int alive, timed; struct stream *captured; unsigned long recorded, done; float passed; struct stream *at; struct event *next; };

struct op {
    enum kind kind;
    uint64_t to, from;
    size_t bytes;
    unsigned value;
    unsigned char *staged;
    struct event *event;
    unsigned long number;
    struct stream *other;
    void (*function)(void *);
    void *data;
    struct op *next;
};

/* origin: the stream whose capture this one was pulled into. */
struct stream { int alive, priority; struct stream *origin; struct op *first, **last; struct stream *next; };

static struct stream default_stream = { .alive = 1, .last = &default_stream.first };
static struct stream *streams = &default_stream;
static struct event *events;
static float clock_ms;

/* Captures in the strict mode, and this thread's own mode: 0 global, 1 thread-local, 2 relaxed. */
static int strict_captures;
static __thread int capture_mode;

static void perform(struct op *op); /* fake_memory.h */

static struct stream *stream_of(void *handle)
{
    if (handle == NULL) return &default_stream;
    for (struct stream *stream = streams; stream; stream = stream->next)
        if (stream == handle && stream->alive) return stream;
    fake_counts[MISUSED]++;
    return NULL;
}

static struct event *event_of(void *handle)
{
    for (struct event *event = events; event; event = event->next)
        if (event == handle && event->alive) return event;
    fake_counts[MISUSED]++;
    return NULL;
}

/* Runs a stream to its end, or until an event has come to a number of recordings. */
static void run(struct stream *stream, const struct event *until, unsigned long number)
{
    while (stream->first && !(until && until->done >= number)) {
        struct op *op = stream->first;
        if (op->kind == WAIT && op->event->done < op->number) run(op->other, op->event, op->number);
        if ((stream->first = op->next) == NULL) stream->last = &stream->first;
        clock_ms += 1;
        switch (op->kind) {
        case WAIT: fake_counts[MISUSED] += op->event->done < op->number; break;
        case CALL: op->function(op->data); break;
        case RECORD:
            if (op->event->done < op->number) op->event->done = op->number;
            op->event->passed = clock_ms;
            break;
        default: perform(op);
        }
        free(op->staged);
        free(op);
    }
}

static void run_one(struct stream *stream)
{
    struct op *rest = stream->first->next;
    struct op **last = stream->last;
    if (rest == NULL) { run(stream, NULL, 0); return; }
    stream->first->next = NULL;
    stream->last = &stream->first->next;
    run(stream, NULL, 0);
    stream->first = rest;
    stream->last = last;
}

static void *handle_of(struct stream *stream) { return stream == &default_stream ? NULL : stream; }

/* The stream in whose capture this one is, or null. */
static struct stream *captured_by(struct stream *stream)
{
    if (capture_of(handle_of(stream))) return stream;
    if (stream->origin && !capture_of(handle_of(stream->origin))) stream->origin = NULL;
    return stream->origin;
}

/* Queues a copy of `op`; on a captured stream it never runs, and becomes a node unless it is about order alone. */
static CUresult enqueue(struct stream *stream, struct op op)
{
    struct stream *origin = captured_by(stream);
    if (origin) {
        int captured = 1;
        free(op.staged);
        if (capture_of(handle_of(origin))->status == 2) return 901;
        return op.kind == RECORD || op.kind == WAIT ? SUCCESS : capture_node(handle_of(origin), &captured);
    }
    struct op *queued = malloc(sizeof *queued);
    op.next = NULL;
    *queued = op;
    *stream->last = queued;
    stream->last = &queued->next;
    return SUCCESS;
}

/* What the driver refuses, to the harm of the capture, to a thread that is not exempt. */
static CUresult beside_captures(struct stream *stream)
{
    struct stream *origin = stream ? captured_by(stream) : NULL;
    if (origin) { capture_of(handle_of(origin))->status = 2; return CAPTURE_UNSUPPORTED; }
    if (strict_captures == 0 || capture_mode == 2) return SUCCESS;
    fake_spoil_captures();
    return CAPTURE_UNSUPPORTED;
}
#define BESIDE_CAPTURES(stream) \
    do { CUresult refused = beside_captures(stream); if (refused != SUCCESS) return refused; } while (0)

/* Puts a stream into a strict capture; the captures of cuStreamBeginCapture forbid nothing to other threads. */
CUresult fake_begin_strict(void *handle) { LOCKED; strict_captures++; return begin_capture(handle, 0); }

/* Ends it; answers with its nodes, or -1 where it was spoilt. */
int fake_end_strict(void *handle)
{
    LOCKED;
    struct capture *capture = capture_of(handle);
    int nodes = capture->status == 2 ? -1 : capture->nodes;
    capture->status = 0;
    strict_captures--;
    return nodes;
}

/* Operations that have not run yet. */
int fake_pending(void)
{
    LOCKED;
    int pending = 0;
    for (struct stream *stream = streams; stream; stream = stream->next)
        for (struct op *op = stream->first; op; op = op->next) pending++;
    return pending;
}

static void run_all(void) { for (struct stream *stream = streams; stream; stream = stream->next) run(stream, NULL, 0); }

void fake_finish(void) { LOCKED; run_all(); }

static CUresult ctx_synchronize(void) { ENTER("cuCtxSynchronize"); BESIDE_CAPTURES(NULL); run_all(); return SUCCESS; }

static CUresult priority_range(int *least, int *greatest)
{
    ENTER("cuCtxGetStreamPriorityRange");
    *least = 0;
    *greatest = -5;
    return SUCCESS;
}

static CUresult exchange_mode(int *mode)
{
    int before = capture_mode;
    if (*mode < 0 || *mode > 2) { fake_counts[MISUSED]++; return INVALID_VALUE; }
    capture_mode = *mode;
    *mode = before;
    return SUCCESS;
}

static CUresult stream_create(void **handle, unsigned flags, int priority)
{
    ENTER("cuStreamCreateWithPriority");
    if (flags > 1) return INVALID_VALUE;
    struct stream *stream = calloc(1, sizeof *stream);
    stream->alive = 1;
    stream->priority = priority > 0 ? 0 : priority < -5 ? -5 : priority;
    stream->last = &stream->first;
    stream->next = streams;
    streams = stream;
    fake_counts[STREAMS]++;
    *handle = stream;
    return SUCCESS;
}

static CUresult stream_destroy(void *handle)
{
    ENTER("cuStreamDestroy");
    BESIDE_CAPTURES(NULL);
    struct stream *stream = stream_of(handle);
    if (stream == NULL || stream == &default_stream) return INVALID_HANDLE;
    /* What was queued stays so, and runs when something waits for it. */
    stream->alive = 0;
    fake_counts[STREAMS]--;
    return SUCCESS;
}

static CUresult stream_synchronize(void *handle)
{
    ENTER("cuStreamSynchronize");
    struct stream *stream = stream_of(handle);
    if (stream == NULL) return INVALID_HANDLE;
    BESIDE_CAPTURES(stream);
    run(stream, NULL, 0);
    return SUCCESS;
}

/* Each question lets the stream get on by one. */
static CUresult stream_query(void *handle)
{
    ENTER("cuStreamQuery");
    struct stream *stream = stream_of(handle);
    if (stream == NULL) return INVALID_HANDLE;
    BESIDE_CAPTURES(stream);
    if (stream->first == NULL) return SUCCESS;
    run_one(stream);
    return NOT_READY;
}

static CUresult stream_priority(void *handle, int *priority)
{
    ENTER("cuStreamGetPriority");
    struct stream *stream = stream_of(handle);
    if (stream == NULL) return INVALID_HANDLE;
    *priority = stream->priority;
    return SUCCESS;
}

static CUresult stream_or_origin_is_capturing(void *handle, int *status)
{
    ENTER("cuStreamIsCapturing");
    struct stream *stream = stream_of(handle);
    if (stream == NULL) return INVALID_HANDLE;
    struct stream *origin = captured_by(stream);
    return stream_is_capturing(handle_of(origin ? origin : stream), status);
}

static CUresult stream_wait_event(void *handle, void *mark, unsigned flags)
{
    ENTER("cuStreamWaitEvent");
    struct stream *stream = stream_of(handle);
    struct event *event = event_of(mark);
    if (stream == NULL || event == NULL || flags != 0) return INVALID_HANDLE;
    struct stream *origin = captured_by(stream);
    if (event->captured && !origin) stream->origin = event->captured;
    if (origin && !event->captured) { capture_of(handle_of(origin))->status = 2; return CAPTURE_ISOLATION; }
    if (event->captured) return SUCCESS;
    if (event->recorded == 0) return SUCCESS;
    return enqueue(stream, (struct op){ .kind = WAIT, .event = event, .number = event->recorded, .other = event->at });
}

static CUresult launch_host_function(void *handle, void (*function)(void *), void *data)
{
    ENTER("cuLaunchHostFunc");
    struct stream *stream = stream_of(handle);
    if (stream == NULL) return INVALID_HANDLE;
    return enqueue(stream, (struct op){ .kind = CALL, .function = function, .data = data });
}

static CUresult event_create(void **handle, unsigned flags)
{
    ENTER("cuEventCreate");
    BESIDE_CAPTURES(NULL);
    if (flags > 7) return INVALID_VALUE;
    struct event *event = calloc(1, sizeof *event);
    event->alive = 1;
    event->timed = !(flags & 2);
    event->next = events;
    events = event;
    fake_counts[EVENTS]++;
    *handle = event;
    return SUCCESS;
}

static CUresult event_destroy(void *handle)
{
    ENTER("cuEventDestroy");
    BESIDE_CAPTURES(NULL);
    struct event *event = event_of(handle);
    if (event == NULL) return INVALID_HANDLE;
    event->alive = 0;
    fake_counts[EVENTS]--;
    return SUCCESS;
}

static CUresult event_record(void *handle, void *queue)
{
    ENTER("cuEventRecord");
    struct event *event = event_of(handle);
    struct stream *stream = stream_of(queue);
    if (event == NULL || stream == NULL) return INVALID_HANDLE;
    event->captured = captured_by(stream);
    if (!event->captured) { event->recorded++; event->at = stream; }
    return enqueue(stream, (struct op){ .kind = RECORD, .event = event, .number = event->recorded });
}

static CUresult event_query(void *handle)
{
    ENTER("cuEventQuery");
    struct event *event = event_of(handle);
    if (event == NULL) return INVALID_HANDLE;
    BESIDE_CAPTURES(NULL);
    if (event->captured) return CAPTURED_EVENT;
    if (event->done >= event->recorded) return SUCCESS;
    run_one(event->at);
    return NOT_READY;
}

static CUresult event_synchronize(void *handle)
{
    ENTER("cuEventSynchronize");
    struct event *event = event_of(handle);
    if (event == NULL) return INVALID_HANDLE;
    BESIDE_CAPTURES(NULL);
    if (event->captured) return CAPTURED_EVENT;
    if (event->done < event->recorded) run(event->at, event, event->recorded);
    return SUCCESS;
}

static CUresult event_elapsed(float *milliseconds, void *first, void *second)
{
    ENTER("cuEventElapsedTime");
    struct event *start = event_of(first), *end = event_of(second);
    if (start == NULL || end == NULL || !start->timed || !end->timed) return INVALID_HANDLE;
    if (start->recorded == 0 || end->recorded == 0) return INVALID_HANDLE;
    if (start->done < start->recorded || end->done < end->recorded) return NOT_READY;
    *milliseconds = end->passed - start->passed;
    return SUCCESS;
}

#define STREAM_ENTRIES \
    { "cuCtxSynchronize", 2000, (void *)ctx_synchronize }, \
    { "cuCtxGetStreamPriorityRange", 5050, (void *)priority_range }, \
    { "cuThreadExchangeStreamCaptureMode", 10010, (void *)exchange_mode }, \
    { "cuStreamCreateWithPriority", 5050, (void *)stream_create }, \
    { "cuStreamDestroy", 4000, (void *)stream_destroy }, \
    { "cuStreamSynchronize", 2000, (void *)stream_synchronize }, \
    { "cuStreamQuery", 2000, (void *)stream_query }, \
    { "cuStreamGetPriority", 5050, (void *)stream_priority }, \
    { "cuStreamIsCapturing", 10000, (void *)stream_or_origin_is_capturing }, \
    { "cuStreamWaitEvent", 3020, (void *)stream_wait_event }, \
    { "cuLaunchHostFunc", 10000, (void *)launch_host_function }, \
    { "cuEventCreate", 2000, (void *)event_create }, \
    { "cuEventDestroy", 4000, (void *)event_destroy }, \
    { "cuEventRecord", 2000, (void *)event_record }, \
    { "cuEventQuery", 2000, (void *)event_query }, \
    { "cuEventSynchronize", 2000, (void *)event_synchronize }, \
    { "cuEventElapsedTime", 2000, (void *)event_elapsed },
