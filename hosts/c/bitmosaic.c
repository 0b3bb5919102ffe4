#include "bitmosaic.h"

#define OFFSET(name) offsetof(bitmosaic_core_t, name)
#define FIELD(value, name) (((value) & BITMOSAIC_CORE__##name##_bm) >> BITMOSAIC_CORE__##name##_bp)
#define ERROR(name) BITMOSAIC_CORE__CORE_ERROR__##name
#define IRQ (BITMOSAIC_CORE__IRQ_ENABLE__DONE_bm | BITMOSAIC_CORE__IRQ_ENABLE__ERROR_bm)

static uint32_t get(const struct bitmosaic_device *device, size_t offset)
{
    return device->platform->read(device->platform->context, offset);
}

static void set(const struct bitmosaic_device *device, size_t offset, uint32_t value)
{
    device->platform->write(device->platform->context, offset, value);
}

static void barrier(const struct bitmosaic_device *device)
{
    if (device->platform->barrier)
        device->platform->barrier(device->platform->context);
}

static void clean(const struct bitmosaic_device *device, const void *bytes, size_t size)
{
    if (device->platform->clean && size)
        device->platform->clean(device->platform->context, bytes, size);
}

static void invalidate(const struct bitmosaic_device *device, const struct bitmosaic_job *job)
{
    if (device->platform->invalidate && job->results_size)
        device->platform->invalidate(device->platform->context, job->results, job->results_size);
}

/* Whether more than `ticks` have passed; right over a wrap of the clock. */
static int late(const struct bitmosaic_device *device, uint32_t since, uint32_t ticks)
{
    return device->platform->now(device->platform->context) - since > ticks;
}

/* What has interrupted is known: the level falls. */
static void acknowledge(const struct bitmosaic_device *device)
{
    set(device, OFFSET(IRQ_STATUS), IRQ);
}

/* Ends the job that runs, if one does, and all transfers: inputs are taken and dropped until the next start. */
static int stop(const struct bitmosaic_device *device, uint32_t ticks)
{
    const uint32_t since = device->platform->now(device->platform->context);

    int stuck = 0;

    set(device, OFFSET(CONTROL), BITMOSAIC_CORE__CONTROL__ABORT_bm);
    while (!stuck && get(device, OFFSET(STATUS)) & BITMOSAIC_CORE__STATUS__BUSY_bm)
        stuck = late(device, since, ticks);
    acknowledge(device);
    if (!stuck && !device->platform->settle(device->platform->context))
        return 0;
    set(device, OFFSET(IRQ_ENABLE), 0u); /* nobody is left to answer */
    return BITMOSAIC_STUCK;
}

static void forget(const struct bitmosaic_device *device)
{
    set(device, OFFSET(ERROR_FLAGS), BITMOSAIC_CORE__ERROR_FLAGS__FLAGS_bm);
    set(device, OFFSET(NUMERIC_FLAGS),
        BITMOSAIC_CORE__NUMERIC_FLAGS__FP32_OVERFLOW_bm | BITMOSAIC_CORE__NUMERIC_FLAGS__FP16_SATURATED_bm);
    set(device, OFFSET(CONTROL), BITMOSAIC_CORE__CONTROL__CLEAR_bm);
}

int bitmosaic_open(struct bitmosaic_device *device, const struct bitmosaic_platform *platform, uint32_t ticks)
{
    uint32_t build, blocks, decodes, limits;

    device->platform = platform;
    if (get(device, OFFSET(ID)) != 0x424D5343u || FIELD(get(device, OFFSET(VERSION)), VERSION__MAJOR) != 1u)
        return BITMOSAIC_NO_CORE;
    build = get(device, OFFSET(BUILD));
    blocks = get(device, OFFSET(BUILD_BLOCKS));
    decodes = get(device, OFFSET(BUILD_DATATYPES));
    limits = get(device, OFFSET(LIMITS));
    device->rows = FIELD(build, BUILD__ROWS);
    device->columns = FIELD(build, BUILD__COLUMNS);
    device->lanes = FIELD(build, BUILD__LANES);
    device->token_sets = FIELD(blocks, BUILD_BLOCKS__TOKEN_SETS);
    device->chunk = FIELD(blocks, BUILD_BLOCKS__CHUNK);
    device->block_outputs = FIELD(blocks, BUILD_BLOCKS__OUTPUTS);
    device->group_sizes = FIELD(decodes, BUILD_DATATYPES__GROUP_SIZES);
    device->datatypes = FIELD(decodes, BUILD_DATATYPES__DATATYPES);
    device->max_inputs = FIELD(limits, LIMITS__INPUTS);
    device->max_outputs = FIELD(limits, LIMITS__OUTPUTS);
    if (!device->rows || !device->columns || !device->token_sets || device->block_outputs < device->rows ||
        !(device->group_sizes & 7u) || device->chunk < 32u)
        return BITMOSAIC_NO_CORE;
    set(device, OFFSET(IRQ_ENABLE), platform->sleep ? IRQ : 0u);
    return stop(device, ticks);
}

int bitmosaic_set_specials(const struct bitmosaic_device *device, const int8_t values[8])
{
    int refused = 0;

    for (unsigned index = 0; index < 8u; index++) {
        const size_t offset = OFFSET(SPECIAL) + 4u * index;
        const uint32_t value = (uint32_t)values[index] & 0xFFu;

        set(device, offset, value);
        refused |= (get(device, offset) & 0xFFu) != value;
    }
    acknowledge(device);
    return refused ? ERROR(SPECIAL_REFUSED) : 0;
}

static uint32_t parts(uint32_t count, uint32_t most)
{
    return count / most + (count % most != 0u);
}

int bitmosaic_tile(const struct bitmosaic_device *device, uint32_t tokens, uint32_t inputs, uint32_t outputs,
                   struct bitmosaic_tiling *tiling)
{
    const uint32_t unit = device->group_sizes & 4u ? 128u : device->group_sizes & 2u ? 64u : 32u;
    uint32_t units, part;

    if (!tokens || !inputs || !outputs)
        return ERROR(ZERO_SIZE);
    if (inputs > device->max_inputs || outputs > device->max_outputs)
        return ERROR(SIZE_LIMIT);
    units = parts(inputs, unit);
    tiling->block_tokens = device->columns * device->token_sets;
    tiling->token_blocks = parts(tokens, tiling->block_tokens);
    /* The fewest parts, all equal but the last. */
    tiling->blocks = parts(outputs, device->rows);
    part = parts(tiling->blocks, parts(tiling->blocks, device->block_outputs / device->rows));
    tiling->super_blocks = parts(tiling->blocks, part);
    tiling->super_outputs = part * device->rows;
    part = parts(units, parts(units, device->chunk / unit));
    tiling->chunks = parts(units, part);
    tiling->chunk_inputs = part * unit;
    return 0;
}

size_t bitmosaic_result(const struct bitmosaic_device *device, const struct bitmosaic_job *job, uint32_t token,
                        uint32_t output)
{
    const uint32_t block_tokens = device->columns * device->token_sets;
    const uint32_t first = token - token % block_tokens, left = job->tokens - first;
    const uint32_t tokens = left < block_tokens ? left : block_tokens;
    const uint32_t block = output - output % device->rows, channels = job->outputs - block;

    return (size_t)first * job->outputs + (size_t)block * tokens +
           (size_t)(token - first) * (channels < device->rows ? channels : device->rows) + (output - block);
}

/* Describes a job and starts it; 0, or the error for which it was refused. */
static int start(const struct bitmosaic_device *device, const struct bitmosaic_job *job)
{
    forget(device);
    set(device, OFFSET(TOKENS), job->tokens);
    set(device, OFFSET(INPUTS), job->inputs);
    set(device, OFFSET(OUTPUTS), job->outputs);
    set(device, OFFSET(FORMAT), job->group_size | (job->fp16 ? BITMOSAIC_CORE__FORMAT__FP16_bm : 0u));
    set(device, OFFSET(DATATYPES), job->datatypes);
    barrier(device);
    set(device, OFFSET(CONTROL), BITMOSAIC_CORE__CONTROL__START_bm);
    if (!(get(device, OFFSET(STATUS)) & BITMOSAIC_CORE__STATUS__FAILED_bm))
        return 0;
    acknowledge(device);
    return (int)FIELD(get(device, OFFSET(ERROR)), ERROR__CODE);
}

static int send(const struct bitmosaic_device *device, enum bitmosaic_stream stream,
                const struct bitmosaic_image *image, uint32_t first, uint32_t count, uint32_t since, uint32_t ticks)
{
    const struct bitmosaic_platform *platform = device->platform;
    int full;

    while ((full = platform->send(platform->context, stream, image, first, count)) > 0)
        if (late(device, since, ticks))
            return BITMOSAIC_TIMED_OUT;
        else if (platform->poll(platform->context) < 0)
            return BITMOSAIC_STREAMS_FAILED;
    return full ? BITMOSAIC_STREAMS_FAILED : 0;
}

/* All weights once for each token block; a token block's activations once for each super-block. */
static int feed(const struct bitmosaic_device *device, const struct bitmosaic_job *job,
                const struct bitmosaic_tiling *tiling, uint32_t since)
{
    uint32_t left = job->tokens, first = 0;
    int failed = 0;

    for (uint32_t block = 0; block < tiling->token_blocks && !failed; block++) {
        const uint32_t tokens = left < tiling->block_tokens ? left : tiling->block_tokens;
        const uint32_t packets = tokens * tiling->chunks;

        failed = send(device, BITMOSAIC_WEIGHTS, &job->weights, 0, job->weights.packets, since, job->ticks);
        for (uint32_t super = 0; super < tiling->super_blocks && !failed; super++)
            failed = send(device, BITMOSAIC_ACTIVATIONS, &job->activations, first, packets, since, job->ticks);
        first += packets;
        left -= tokens;
    }
    return failed;
}

/* Until the core has ended the job and the streams their transfers. */
static int finish(const struct bitmosaic_device *device, const struct bitmosaic_job *job, uint32_t since)
{
    const struct bitmosaic_platform *platform = device->platform;

    for (;;) {
        const int moving = platform->poll(platform->context);
        const uint32_t busy = get(device, OFFSET(STATUS)) & BITMOSAIC_CORE__STATUS__BUSY_bm;
        const uint32_t elapsed = platform->now(platform->context) - since;

        if (moving < 0)
            return BITMOSAIC_STREAMS_FAILED;
        if (!moving && !busy)
            return 0;
        if (elapsed > job->ticks)
            return BITMOSAIC_TIMED_OUT;
        if (platform->sleep && busy) {
            /* The interrupt is a level: what is pending now ends the sleep at once, so nothing is slept through. */
            platform->sleep(platform->context, job->ticks - elapsed + 1u);
            acknowledge(device);
        }
    }
}

int bitmosaic_run(const struct bitmosaic_device *device, const struct bitmosaic_job *job)
{
    const struct bitmosaic_platform *platform = device->platform;
    const uint32_t since = platform->now(platform->context);
    struct bitmosaic_tiling tiling;
    int code = bitmosaic_tile(device, job->tokens, job->inputs, job->outputs, &tiling);

    if (code)
        return code;
    if (job->weights.packets != tiling.blocks * tiling.chunks ||
        job->activations.packets != (uint64_t)job->tokens * tiling.chunks ||
        job->results_size != (uint64_t)job->tokens * job->outputs * (job->fp16 ? 2u : 4u))
        return BITMOSAIC_BAD_JOB;
    clean(device, job->weights.bytes, job->weights.size);
    clean(device, job->activations.bytes, job->activations.size);
    /* No dirty line may be written over results later, and no line that was fetched meanwhile hide them. */
    invalidate(device, job);
    code = start(device, job);
    if (code)
        return code;
    code = platform->receive(platform->context, job->results, job->results_size) ? BITMOSAIC_STREAMS_FAILED : 0;
    if (!code)
        code = feed(device, job, &tiling, since);
    if (!code)
        code = finish(device, job, since);
    if (code)
        return stop(device, job->ticks) ? BITMOSAIC_STUCK : code;
    invalidate(device, job);
    acknowledge(device);
    return (int)FIELD(get(device, OFFSET(ERROR)), ERROR__CODE);
}

/* A 64-bit counter, low word first: reading it keeps the high word for the next read. */
static uint64_t counter(const struct bitmosaic_device *device, size_t offset)
{
    const uint32_t low = get(device, offset);

    return low | (uint64_t)get(device, offset + 4u) << 32;
}

void bitmosaic_read_counters(const struct bitmosaic_device *device, struct bitmosaic_counters *counters)
{
    counters->cycles = counter(device, OFFSET(CYCLES));
    counters->busy = counter(device, OFFSET(BUSY_CYCLES));
    counters->stalled = counter(device, OFFSET(STALL_CYCLES));
    counters->macs = counter(device, OFFSET(MACS));
    counters->errors = FIELD(get(device, OFFSET(ERROR)), ERROR__COUNT);
    counters->error_flags = get(device, OFFSET(ERROR_FLAGS));
    counters->numeric_flags = get(device, OFFSET(NUMERIC_FLAGS));
}
