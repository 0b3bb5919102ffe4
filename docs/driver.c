/* A minimal driver of the accelerator core: docs/integration.md. Freestanding C11 but for the header's assert.h.
 *
 * The header comes from the register definition: bitmosaic registers --out DIR.
 * The images are those that `bitmosaic pack --core PRESET` writes: weights.bin, activations.bin and their packet ends.
 */
#include <stddef.h>
#include <stdint.h>

#include "bitmosaic_core.h"

#define FIELD(value, name) (((value) & BITMOSAIC_CORE__##name##_bm) >> BITMOSAIC_CORE__##name##_bp)

enum { BITMOSAIC_NO_CORE = -1, BITMOSAIC_STREAMS_FAILED = -2 };

enum bitmosaic_stream { BITMOSAIC_WEIGHTS, BITMOSAIC_ACTIVATIONS };

/* Packets back to back in memory. end[p] is the number of the last beat of packet p, counted from the image's start:
 * TLAST is on it. */
struct bitmosaic_image {
    const uint8_t *bytes;
    const uint32_t *end;
    uint32_t packets;
};

struct bitmosaic_job {
    uint32_t tokens, inputs, outputs;
    uint32_t group_size; /* BITMOSAIC_CORE__GROUP_SIZE__* */
    uint32_t fp16;       /* 1: FP16 results */
    uint32_t datatypes;  /* bit d allows datatype code d */
    struct bitmosaic_image weights, activations;
};

/* The system's DMA. queue() sends packets [first, first + count) of an image and may return before they are sent; what
 * is queued for the two streams must proceed independently, each in order. The result stream must be served meanwhile.
 * wait() returns when all is sent and received; both return 0, or not. */
struct bitmosaic_dma {
    int (*queue)(void *context, enum bitmosaic_stream stream, const struct bitmosaic_image *image, uint32_t first,
                 uint32_t count);
    int (*wait)(void *context);
    void *context;
};

/* How the core cuts a job: parts of each kind, and the size of all of them but the last. */
struct bitmosaic_tiling {
    uint32_t token_blocks, block_tokens;
    uint32_t super_blocks, super_outputs;
    uint32_t chunks, chunk_inputs;
};

static uint32_t parts(uint32_t count, uint32_t most)
{
    return count / most + (count % most != 0);
}

struct bitmosaic_tiling bitmosaic_tile(uint32_t build, uint32_t build_blocks, uint32_t build_datatypes, uint32_t tokens,
                                       uint32_t inputs, uint32_t outputs)
{
    const uint32_t rows = FIELD(build, BUILD__ROWS);
    const uint32_t group_sizes = FIELD(build_datatypes, BUILD_DATATYPES__GROUP_SIZES);
    const uint32_t unit = group_sizes & 4 ? 128 : group_sizes & 2 ? 64 : 32;
    const uint32_t units = parts(inputs, unit), blocks = parts(outputs, rows);
    struct bitmosaic_tiling tiling;
    uint32_t part;

    tiling.block_tokens = FIELD(build, BUILD__COLUMNS) * FIELD(build_blocks, BUILD_BLOCKS__TOKEN_SETS);
    tiling.token_blocks = parts(tokens, tiling.block_tokens);
    /* The fewest parts, all equal but the last. */
    part = parts(blocks, parts(blocks, FIELD(build_blocks, BUILD_BLOCKS__OUTPUTS) / rows));
    tiling.super_blocks = parts(blocks, part);
    tiling.super_outputs = part * rows;
    part = parts(units, parts(units, FIELD(build_blocks, BUILD_BLOCKS__CHUNK) / unit));
    tiling.chunks = parts(units, part);
    tiling.chunk_inputs = part * unit;
    return tiling;
}

int bitmosaic_probe(volatile bitmosaic_core_t *core)
{
    return core->ID == 0x424D5343u && FIELD(core->VERSION, VERSION__MAJOR) == 1 ? 0 : BITMOSAIC_NO_CORE;
}

/* A 64-bit counter, low word first: reading it keeps the high word for the next read. */
uint64_t bitmosaic_counter(volatile bitmosaic_core_t *core, size_t offset)
{
    volatile const uint32_t *words = (volatile const uint32_t *)((uintptr_t)core + offset);
    const uint32_t low = words[0];

    return low | (uint64_t)words[1] << 32;
}

/* Describes a job and starts it; 0, or the code of the error for which it was refused. */
int bitmosaic_start(volatile bitmosaic_core_t *core, const struct bitmosaic_job *job)
{
    core->ERROR_FLAGS = BITMOSAIC_CORE__ERROR_FLAGS__FLAGS_bm;
    core->NUMERIC_FLAGS = BITMOSAIC_CORE__NUMERIC_FLAGS__FP32_OVERFLOW_bm | BITMOSAIC_CORE__NUMERIC_FLAGS__FP16_SATURATED_bm;
    core->CONTROL = BITMOSAIC_CORE__CONTROL__CLEAR_bm;
    core->TOKENS = job->tokens;
    core->INPUTS = job->inputs;
    core->OUTPUTS = job->outputs;
    core->FORMAT = job->group_size | job->fp16 << BITMOSAIC_CORE__FORMAT__FP16_bp;
    core->DATATYPES = job->datatypes;
    core->CONTROL = BITMOSAIC_CORE__CONTROL__START_bm;
    return core->STATUS & BITMOSAIC_CORE__STATUS__FAILED_bm ? (int)FIELD(core->ERROR, ERROR__CODE) : 0;
}

/* Runs a whole layer. 0; a positive CoreError code; or negative if streams or core failed. */
int bitmosaic_run(volatile bitmosaic_core_t *core, const struct bitmosaic_job *job, const struct bitmosaic_dma *dma)
{
    const struct bitmosaic_tiling tiling =
        bitmosaic_tile(core->BUILD, core->BUILD_BLOCKS, core->BUILD_DATATYPES, job->tokens, job->inputs, job->outputs);
    uint32_t left = job->tokens, first = 0, block, super;
    int failed = 0, code = bitmosaic_start(core, job);

    if (code)
        return code;
    for (block = 0; block < tiling.token_blocks && !failed; block++) {
        const uint32_t tokens = left < tiling.block_tokens ? left : tiling.block_tokens;

        /* All weights once for each token block; a token block's activations once for each super-block. */
        failed = dma->queue(dma->context, BITMOSAIC_WEIGHTS, &job->weights, 0, job->weights.packets);
        for (super = 0; super < tiling.super_blocks && !failed; super++)
            failed = dma->queue(dma->context, BITMOSAIC_ACTIVATIONS, &job->activations, first, tokens * tiling.chunks);
        first += tokens * tiling.chunks;
        left -= tokens;
    }
    if (failed || dma->wait(dma->context)) {
        core->CONTROL = BITMOSAIC_CORE__CONTROL__ABORT_bm; /* inputs under way are taken and dropped */
        failed = BITMOSAIC_STREAMS_FAILED;
    }
    while (core->STATUS & BITMOSAIC_CORE__STATUS__BUSY_bm)
        ;
    return failed ? failed : (int)FIELD(core->ERROR, ERROR__CODE);
}
