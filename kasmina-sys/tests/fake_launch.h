/* Modules, kernels, launches and graphs of the fake driver; part of fake_driver.c.
 *
 * A kernel's name tells its parameters: `sizes_8_4` has two of 8 and 4 bytes. Nothing runs: a launch is noted, in `fake_launch`,
 * or becomes a node where its stream is being captured. */

#include <stdio.h>

#define FAKE_KERNELS 64
#define FAKE_CAPTURES 16
#define FAKE_PARAMETERS 24

/* Counts, read by the tests through dlsym: modules, graphs and instantiated graphs that live, launches, launches of graphs,
 * updates, uploads, nodes run by launches of graphs, questions for occupancy. */
int fake_launch_counts[9];
enum { MODULES, GRAPHS, EXECS, LAUNCHES, GRAPH_LAUNCHES, UPDATES, UPLOADS, NODES_RUN, OCCUPANCY };

/* The last launch, as the kernel would see it. */
struct {
    char kernel[64];
    uint32_t grid[3], block[3], shared;
    uint32_t attribute_count, attribute_id[8];
    uint8_t attribute_value[8][64];
    uint32_t argument_count, argument_misalignment[FAKE_PARAMETERS];
    uint64_t stream, argument_bytes;
    uint8_t arguments[4096];
} fake_launch;

/* The reason that the next updates are refused with, 0 for none but their own. */
int fake_update_result;

static int launch_lock;

#define COUNT(which, by) __atomic_add_fetch(&fake_launch_counts[which], by, __ATOMIC_SEQ_CST)
#define LOCK() while (__atomic_exchange_n(&launch_lock, 1, __ATOMIC_ACQUIRE)) { }
#define UNLOCK() __atomic_store_n(&launch_lock, 0, __ATOMIC_RELEASE)

/* What a device allows of a launch; asked from the function that knows all other attributes. */
static CUresult launch_attribute(int *value, int attribute)
{
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; return SUCCESS;
    case 4: *value = 64; return SUCCESS;
    case 5: *value = 2147483647; return SUCCESS;
    case 6: case 7: *value = 65535; return SUCCESS;
    case 95: *value = 1; return SUCCESS;
    case 120: *value = FAKE_MAJOR >= 9; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

static int is_text(const char *image)
{
    while (*image == ' ' || *image == '\n') image++;
    return strncmp(image, "//", 2) == 0 || *image == '.';
}

/* Takes fatbins, cubins, and PTX without the word "broken" in it; writes a log about that. */
static CUresult module_load(void **module, const void *image, unsigned count, const int *options, void **values)
{
    static const uint8_t fatbin[4] = { 0x50, 0xed, 0x55, 0xba };
    FAILS("cuModuleLoadDataEx");
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    if ((uintptr_t)image % 16 != 0) return INVALID_VALUE;
    if (memcmp(image, fatbin, 4) != 0 && memcmp(image, "\177ELF", 4) != 0) {
        if (!is_text(image)) return 200;
        if (strstr(image, "broken") != NULL) {
            size_t room = 0;
            for (unsigned i = 0; i < count; i++) if (options[i] == 6) room = (size_t)(uintptr_t)values[i];
            for (unsigned i = 0; i < count; i++)
                if (options[i] == 5 && room > 0) {
                    /* As long as the room allows, without an end, where the text asks for that. */
                    if (strstr(image, "at length") != NULL) memset(values[i], 'x', room);
                    else snprintf(values[i], room, "ptxas fatal : line 3 is broken\n");
                }
            return 218;
        }
    }
    COUNT(MODULES, 1);
    *module = malloc(1);
    return SUCCESS;
}

static CUresult module_unload(void *module)
{
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    COUNT(MODULES, -1);
    free(module);
    FAILS("cuModuleUnload");
    return SUCCESS;
}

struct kernel {
    char name[64];
    unsigned parameters;
    size_t offset[FAKE_PARAMETERS], size[FAKE_PARAMETERS];
    int dynamic_shared, carveout, non_portable;
};

static struct kernel kernels[FAKE_KERNELS];

static int read_sizes(struct kernel *kernel, const char *sizes)
{
    size_t at = 0;
    while (*sizes == '_') {
        char *end;
        const size_t size = strtoul(sizes + 1, &end, 10);
        const size_t align = size & -size;
        if (size == 0 || kernel->parameters == FAKE_PARAMETERS) return 0;
        at = (at + align - 1) & -align;
        kernel->offset[kernel->parameters] = at;
        kernel->size[kernel->parameters++] = size;
        at += size;
        sizes = end;
    }
    return *sizes == '\0';
}

static CUresult module_get_function(void **function, void *module, const char *name)
{
    (void)module;
    FAILS("cuModuleGetFunction");
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    const char *sizes = strcmp(name, "kasmina_probe") == 0 ? "_8_4_8" : name + 5;
    if (strlen(name) >= sizeof kernels[0].name || (strncmp(name, "sizes", 5) != 0 && *sizes != '_')) return NOT_FOUND;
    CUresult result = INVALID_VALUE;
    LOCK();
    for (size_t i = 0; i < FAKE_KERNELS; i++) {
        struct kernel *kernel = &kernels[i];
        if (kernel->name[0] == '\0') {
            if (!read_sizes(kernel, sizes)) { memset(kernel, 0, sizeof *kernel); result = NOT_FOUND; break; }
            strcpy(kernel->name, name);
            kernel->dynamic_shared = 48 << 10;
            kernel->carveout = -1;
        }
        if (strcmp(kernel->name, name) == 0) { *function = kernel; result = SUCCESS; break; }
    }
    UNLOCK();
    return result;
}

static CUresult module_get_global(uint64_t *address, size_t *bytes, void *module, const char *name)
{
    static uint32_t words[7];
    (void)module;
    FAILS("cuModuleGetGlobal");
    if (strcmp(name, "words") != 0) return NOT_FOUND;
    *address = (uint64_t)(uintptr_t)words;
    *bytes = sizeof words;
    return SUCCESS;
}

static CUresult func_get_attribute(int *value, int attribute, const struct kernel *kernel)
{
    FAILS("cuFuncGetAttribute");
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    switch (attribute) {
    case 0: *value = 512; return SUCCESS;
    case 1: *value = 4096; return SUCCESS;
    case 2: *value = 16; return SUCCESS;
    case 3: *value = 0; return SUCCESS;
    case 4: *value = 40; return SUCCESS;
    case 5: case 6: *value = 90; return SUCCESS;
    case 8: *value = kernel->dynamic_shared; return SUCCESS;
    case 9: *value = kernel->carveout; return SUCCESS;
    case 14: *value = kernel->non_portable; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

static CUresult func_set_attribute(struct kernel *kernel, int attribute, int value)
{
    FAILS("cuFuncSetAttribute");
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    switch (attribute) {
    case 8: kernel->dynamic_shared = value; return SUCCESS;
    case 9: kernel->carveout = value; return SUCCESS;
    case 14: kernel->non_portable = value; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

static CUresult func_get_param_info(const struct kernel *kernel, size_t index, size_t *offset, size_t *size)
{
    FAILS("cuFuncGetParamInfo");
    if (index >= kernel->parameters) return INVALID_VALUE;
    *offset = kernel->offset[index];
    *size = kernel->size[index];
    return SUCCESS;
}

#define FAKE_NODES 16
#define FAKE_TEXT 128

/* One that was captured is a number of nodes. One that was put together by hand has what each would run, as text. */
struct node { char text[FAKE_TEXT]; int enabled, after, programmatic; };
struct graph { int nodes; struct node list[FAKE_NODES]; };

/* What the last launch of a graph ran, one node behind the other; captured nodes have no text. */
char fake_ran[FAKE_NODES * (FAKE_TEXT + 2)];

/* A stream that is being captured: status 1, or 2 where the capture is spoilt. */
static struct capture { void *stream; int status, nodes; } captures[FAKE_CAPTURES];

static struct capture *capture_of(void *stream)
{
    for (size_t i = 0; i < FAKE_CAPTURES; i++) if (captures[i].status && captures[i].stream == stream) return &captures[i];
    return NULL;
}

/* What a library does that calls something forbidden inside a capture. */
void fake_spoil_captures(void)
{
    LOCK();
    for (size_t i = 0; i < FAKE_CAPTURES; i++) if (captures[i].status) captures[i].status = 2;
    UNLOCK();
}

/* How many streams are being captured. */
int fake_capturing(void)
{
    int count = 0;
    for (size_t i = 0; i < FAKE_CAPTURES; i++) count += captures[i].status != 0;
    return count;
}

/* Makes a piece of work a node where its stream is being captured; then it does not run. */
static CUresult capture_node(void *stream, int *captured)
{
    CUresult result = SUCCESS;
    LOCK();
    struct capture *capture = capture_of(stream);
    *captured = capture != NULL;
    if (capture != NULL && capture->status == 2) result = 901;
    else if (capture != NULL) capture->nodes++;
    UNLOCK();
    return result;
}

struct launch_attribute { uint32_t id; char pad[4]; uint8_t value[64]; };
struct launch_config { uint32_t grid[3], block[3], shared; void *stream; struct launch_attribute *attributes; uint32_t count; };

static CUresult launch_kernel(const struct launch_config *config, const struct kernel *kernel, void **arguments, void **extra)
{
    int captured;
    FAILS("cuLaunchKernelEx");
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    if (extra != NULL || config->count > 8) return INVALID_VALUE;
    const CUresult result = capture_node(config->stream, &captured);
    if (result != SUCCESS) return result;
    LOCK();
    memset(&fake_launch, 0, sizeof fake_launch);
    strcpy(fake_launch.kernel, kernel->name);
    memcpy(fake_launch.grid, config->grid, sizeof fake_launch.grid);
    memcpy(fake_launch.block, config->block, sizeof fake_launch.block);
    fake_launch.shared = config->shared;
    fake_launch.stream = (uint64_t)(uintptr_t)config->stream;
    fake_launch.attribute_count = config->count;
    for (uint32_t i = 0; i < config->count; i++) {
        fake_launch.attribute_id[i] = config->attributes[i].id;
        memcpy(fake_launch.attribute_value[i], config->attributes[i].value, 64);
    }
    fake_launch.argument_count = kernel->parameters;
    for (unsigned i = 0; i < kernel->parameters; i++) {
        const size_t size = kernel->size[i];
        fake_launch.argument_misalignment[i] = (uint32_t)((uintptr_t)arguments[i] % (size & -size));
        memcpy(fake_launch.arguments + fake_launch.argument_bytes, arguments[i], size);
        fake_launch.argument_bytes += size;
    }
    UNLOCK();
    if (!captured) COUNT(LAUNCHES, 1);
    return SUCCESS;
}

/* 64 warps and 228 KiB a multiprocessor, no other limit. */
static int blocks_that_fit(int threads, size_t shared)
{
    const int by_warps = 64 / ((threads + 31) / 32), by_shared = (int)((228 << 10) / (shared + 4096 + 1024));
    return by_warps < by_shared ? by_warps : by_shared;
}

static CUresult max_active_blocks(int *blocks, const struct kernel *kernel, int threads, size_t shared, unsigned flags)
{
    (void)kernel;
    FAILS("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags");
    if (threads <= 0 || flags != 0) return INVALID_VALUE;
    COUNT(OCCUPANCY, 1);
    *blocks = blocks_that_fit(threads, shared);
    return SUCCESS;
}

static CUresult max_potential_block(int *grid, int *block, const struct kernel *kernel, void *of_size, size_t shared, int limit)
{
    (void)kernel;
    FAILS("cuOccupancyMaxPotentialBlockSize");
    if (of_size != NULL) return INVALID_VALUE;
    *block = limit == 0 || limit > 512 ? 512 : limit;
    *grid = 132 * blocks_that_fit(*block, shared);
    return SUCCESS;
}

static CUresult available_shared(size_t *bytes, const struct kernel *kernel, int blocks, int threads)
{
    (void)kernel;
    FAILS("cuOccupancyAvailableDynamicSMemPerBlock");
    if (blocks <= 0 || threads <= 0) return INVALID_VALUE;
    *bytes = (size_t)(228 << 10) / (size_t)blocks - 5120;
    return SUCCESS;
}

static CUresult max_active_clusters(int *clusters, const struct kernel *kernel, const struct launch_config *config)
{
    (void)kernel;
    FAILS("cuOccupancyMaxActiveClusters");
    *clusters = 0;
    for (uint32_t i = 0; i < config->count; i++) {
        uint32_t size[3];
        memcpy(size, config->attributes[i].value, sizeof size);
        if (config->attributes[i].id == 4) *clusters = 132 / (int)(size[0] * size[1] * size[2]);
    }
    return SUCCESS;
}

static CUresult stream_is_capturing(void *stream, int *status)
{
    LOCK();
    const struct capture *capture = capture_of(stream);
    *status = capture == NULL ? 0 : capture->status;
    UNLOCK();
    return SUCCESS;
}

static CUresult begin_capture(void *stream, int mode)
{
    CUresult result = INVALID_VALUE;
    FAILS("cuStreamBeginCapture");
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    if (stream == NULL) return 900;
    if (mode < 0 || mode > 2) return INVALID_VALUE;
    LOCK();
    if (capture_of(stream) != NULL) result = 401;
    else for (size_t i = 0; i < FAKE_CAPTURES; i++) {
        if (captures[i].status) continue;
        captures[i] = (struct capture){ stream, 1, 0 };
        result = SUCCESS;
        break;
    }
    UNLOCK();
    return result;
}

/* The capture is over whatever this returns, as with the true driver. */
static CUresult end_capture(void *stream, void **out)
{
    *out = NULL;
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    LOCK();
    struct capture *capture = capture_of(stream);
    const struct capture ended = capture == NULL ? (struct capture){ NULL, 0, 0 } : *capture;
    if (capture != NULL) capture->status = 0;
    UNLOCK();
    if (ended.status == 0) return 401;
    FAILS("cuStreamEndCapture");
    if (ended.status == 2) return 901;
    struct graph *graph = calloc(1, sizeof *graph);
    graph->nodes = ended.nodes;
    COUNT(GRAPHS, 1);
    *out = graph;
    return SUCCESS;
}

static CUresult graph_create(struct graph **out, unsigned flags)
{
    FAILS("cuGraphCreate");
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    if (flags != 0) return INVALID_VALUE;
    *out = calloc(1, sizeof **out);
    COUNT(GRAPHS, 1);
    return SUCCESS;
}

/* A node of a graph that is put together by hand: its handle is its index, plus one. */
static CUresult graph_add_node(void **out, struct graph *graph, void *const *after, size_t count, const char *text)
{
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    if (graph->nodes == FAKE_NODES || count > 1) return INVALID_VALUE;
    struct node *node = &graph->list[graph->nodes++];
    memset(node, 0, sizeof *node);
    strcpy(node->text, text);
    node->enabled = 1;
    node->after = count == 0 ? 0 : (int)(uintptr_t)after[0];
    if (node->after >= graph->nodes) return INVALID_VALUE;
    *out = (void *)(uintptr_t)graph->nodes;
    return SUCCESS;
}

struct kernel_params {
    const struct kernel *function;
    uint32_t grid[3], block[3], shared;
    void **arguments, **extra;
    void *kernel, *context;
};

/* `name(first argument's first four bytes)@blocks`. */
static CUresult kernel_text(char *text, const struct kernel_params *params)
{
    uint32_t first = 0;
    if (params->extra != NULL || params->kernel != NULL || params->function == NULL) return INVALID_VALUE;
    if (params->function->parameters > 0) memcpy(&first, params->arguments[0], 4);
    snprintf(text, FAKE_TEXT, "%s(%u)@%u", params->function->name, first, params->grid[0]);
    return SUCCESS;
}

struct copy_params {
    size_t src_x, src_y, src_z, src_lod;
    uint32_t src_type;
    const void *src_host;
    uint64_t src;
    void *src_array, *reserved0;
    size_t src_pitch, src_height, dst_x, dst_y, dst_z, dst_lod;
    uint32_t dst_type;
    void *dst_host;
    uint64_t dst;
    void *dst_array, *reserved1;
    size_t dst_pitch, dst_height, width, height, depth;
};

static CUresult copy_text(char *text, const struct copy_params *params)
{
    if (params->src_type != 2 || params->dst_type != 2 || params->height != 1 || params->depth != 1) return INVALID_VALUE;
    if (params->width == 0 || params->src_x | params->src_y | params->src_z | params->dst_x | params->dst_y | params->dst_z)
        return INVALID_VALUE;
    snprintf(text, FAKE_TEXT, "copy(%llu,%llu,%zu)", (unsigned long long)params->dst, (unsigned long long)params->src, params->width);
    return SUCCESS;
}

static CUresult graph_add_kernel(void **out, struct graph *graph, void *const *after, size_t count, const struct kernel_params *params)
{
    char text[FAKE_TEXT];
    FAILS("cuGraphAddKernelNode");
    const CUresult result = kernel_text(text, params);
    return result != SUCCESS ? result : graph_add_node(out, graph, after, count, text);
}

static CUresult graph_add_copy(void **out, struct graph *graph, void *const *after, size_t count, const struct copy_params *params,
                               void *context)
{
    char text[FAKE_TEXT];
    FAILS("cuGraphAddMemcpyNode");
    if (context == NULL) return INVALID_VALUE;
    const CUresult result = copy_text(text, params);
    return result != SUCCESS ? result : graph_add_node(out, graph, after, count, text);
}

/* Only programmatic edges from a kernel to a kernel come in here. */
static CUresult graph_add_edges(struct graph *graph, void *const *from, void *const *to, const uint8_t (*data)[8], size_t count)
{
    static const uint8_t programmatic[8] = { 1, 0, 1 };
    FAILS("cuGraphAddDependencies");
    for (size_t i = 0; i < count; i++) {
        const uintptr_t a = (uintptr_t)from[i], b = (uintptr_t)to[i];
        if (a == 0 || b <= a || b > (uintptr_t)graph->nodes || memcmp(data[i], programmatic, 8) != 0) return INVALID_VALUE;
        struct node *first = &graph->list[a - 1], *second = &graph->list[b - 1];
        if (strncmp(first->text, "copy", 4) == 0 || strncmp(second->text, "copy", 4) == 0) return INVALID_VALUE;
        second->after = (int)a;
        second->programmatic = 1;
    }
    return SUCCESS;
}

static CUresult exec_node(struct graph *exec, void *handle, const char *kind, struct node **out)
{
    const uintptr_t at = (uintptr_t)handle;
    if (at == 0 || at > (uintptr_t)exec->nodes) return INVALID_VALUE;
    *out = &exec->list[at - 1];
    const int is_copy = strncmp((*out)->text, "copy", 4) == 0;
    return kind != NULL && is_copy != (strcmp(kind, "copy") == 0) ? INVALID_VALUE : SUCCESS;
}

static CUresult exec_set_kernel(struct graph *exec, void *handle, const struct kernel_params *params)
{
    struct node *node;
    char text[FAKE_TEXT];
    FAILS("cuGraphExecKernelNodeSetParams");
    CUresult result = exec_node(exec, handle, "kernel", &node);
    if (result == SUCCESS) result = kernel_text(text, params);
    if (result == SUCCESS) strcpy(node->text, text), COUNT(UPDATES, 1);
    return result;
}

static CUresult exec_set_copy(struct graph *exec, void *handle, const struct copy_params *params, void *context)
{
    struct node *node;
    char text[FAKE_TEXT];
    FAILS("cuGraphExecMemcpyNodeSetParams");
    if (context == NULL) return INVALID_VALUE;
    CUresult result = exec_node(exec, handle, "copy", &node);
    if (result == SUCCESS) result = copy_text(text, params);
    if (result == SUCCESS) strcpy(node->text, text), COUNT(UPDATES, 1);
    return result;
}

static CUresult node_set_enabled(struct graph *exec, void *handle, unsigned enabled)
{
    struct node *node;
    FAILS("cuGraphNodeSetEnabled");
    const CUresult result = exec_node(exec, handle, NULL, &node);
    if (result == SUCCESS) node->enabled = (int)enabled, COUNT(UPDATES, 1);
    return result;
}

/* What a launch of a graph that was put together by hand runs, in `fake_ran`. A `+` stands before what need not wait. */
static int run_nodes(const struct graph *exec)
{
    int ran = 0;
    char *end = fake_ran;
    *end = '\0';
    for (int i = 0; i < exec->nodes; i++) {
        const struct node *node = &exec->list[i % FAKE_NODES];
        if (node->text[0] == '\0') return exec->nodes;
        if (i > 0 && node->after != i) return -1;
        if (!node->enabled) continue;
        end += sprintf(end, "%s%s%s", ran > 0 ? " " : "", node->programmatic ? "+" : "", node->text);
        ran++;
    }
    return ran;
}

static CUresult graph_get_nodes(const struct graph *graph, void **nodes, size_t *count)
{
    FAILS("cuGraphGetNodes");
    if (nodes != NULL) return INVALID_VALUE;
    *count = (size_t)graph->nodes;
    return SUCCESS;
}

static CUresult graph_destroy(struct graph *graph)
{
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    COUNT(GRAPHS, -1);
    free(graph);
    FAILS("cuGraphDestroy");
    return SUCCESS;
}

static CUresult graph_instantiate(struct graph **exec, const struct graph *graph, unsigned long long flags)
{
    FAILS("cuGraphInstantiateWithFlags");
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    if (flags != 0) return INVALID_VALUE;
    *exec = malloc(sizeof **exec);
    **exec = *graph;
    COUNT(EXECS, 1);
    return SUCCESS;
}

struct update_result { int result; void *node, *from; };

static CUresult graph_exec_update(const struct graph *exec, const struct graph *graph, struct update_result *info)
{
    FAILS("cuGraphExecUpdate");
    info->result = fake_update_result != 0 ? fake_update_result : exec->nodes != graph->nodes ? 2 : 0;
    if (info->result != 0) return 910;
    COUNT(UPDATES, 1);
    return SUCCESS;
}

static CUresult graph_exec_destroy(struct graph *exec)
{
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    COUNT(EXECS, -1);
    free(exec);
    FAILS("cuGraphExecDestroy");
    return SUCCESS;
}

static CUresult graph_upload(const struct graph *exec, void *stream)
{
    (void)exec, (void)stream;
    FAILS("cuGraphUpload");
    COUNT(UPLOADS, 1);
    return SUCCESS;
}

static CUresult graph_launch(const struct graph *exec, void *stream)
{
    int captured;
    FAILS("cuGraphLaunch");
    if (!HAS_CONTEXT) return INVALID_CONTEXT;
    const CUresult result = capture_node(stream, &captured);
    if (result != SUCCESS || captured) return result;
    LOCK();
    const int ran = run_nodes(exec);
    UNLOCK();
    if (ran < 0) return INVALID_VALUE;
    COUNT(GRAPH_LAUNCHES, 1);
    COUNT(NODES_RUN, ran);
    return SUCCESS;
}

#define LAUNCH_ENTRIES \
    { "cuModuleLoadDataEx", 2010, (void *)module_load }, \
    { "cuModuleUnload", 2000, (void *)module_unload }, \
    { "cuModuleGetFunction", 2000, (void *)module_get_function }, \
    { "cuModuleGetGlobal", 3020, (void *)module_get_global }, \
    { "cuFuncGetAttribute", 2020, (void *)func_get_attribute }, \
    { "cuFuncSetAttribute", 9000, (void *)func_set_attribute }, \
    { "cuFuncGetParamInfo", 12040, (void *)func_get_param_info }, \
    { "cuLaunchKernelEx", 11060, (void *)launch_kernel }, \
    { "cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", 7000, (void *)max_active_blocks }, \
    { "cuOccupancyMaxPotentialBlockSize", 6050, (void *)max_potential_block }, \
    { "cuOccupancyAvailableDynamicSMemPerBlock", 10020, (void *)available_shared }, \
    { "cuOccupancyMaxActiveClusters", 11070, (void *)max_active_clusters }, \
    { "cuStreamBeginCapture", 10010, (void *)begin_capture }, \
    { "cuStreamEndCapture", 10000, (void *)end_capture }, \
    { "cuGraphGetNodes", 10000, (void *)graph_get_nodes }, \
    { "cuGraphDestroy", 10000, (void *)graph_destroy }, \
    { "cuGraphCreate", 10000, (void *)graph_create }, \
    { "cuGraphAddKernelNode", 12000, (void *)graph_add_kernel }, \
    { "cuGraphAddMemcpyNode", 10000, (void *)graph_add_copy }, \
    { "cuGraphAddDependencies", 12030, (void *)graph_add_edges }, \
    { "cuGraphExecKernelNodeSetParams", 12000, (void *)exec_set_kernel }, \
    { "cuGraphExecMemcpyNodeSetParams", 10020, (void *)exec_set_copy }, \
    { "cuGraphNodeSetEnabled", 11060, (void *)node_set_enabled }, \
    { "cuGraphInstantiateWithFlags", 11040, (void *)graph_instantiate }, \
    { "cuGraphExecUpdate", 12000, (void *)graph_exec_update }, \
    { "cuGraphExecDestroy", 10000, (void *)graph_exec_destroy }, \
    { "cuGraphUpload", 11010, (void *)graph_upload }, \
    { "cuGraphLaunch", 10000, (void *)graph_launch },
