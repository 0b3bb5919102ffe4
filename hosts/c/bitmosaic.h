/* A driver of the accelerator core: C99, no operating system, no allocation (docs/integration.md, section 6).
 *
 * bitmosaic_core.h comes from the register definition: bitmosaic registers --out DIR.
 * Images are those that `bitmosaic pack --core PRESET` writes: weights.bin, activations.bin and their packet ends. */
#ifndef BITMOSAIC_H
#define BITMOSAIC_H

#include <stddef.h>
#include <stdint.h>

#include "bitmosaic_core.h"

/* What functions return: 0, a positive BITMOSAIC_CORE__CORE_ERROR__* that the core reports, or one of these. */
enum {
    BITMOSAIC_NO_CORE = -1,        /* another ID, a register map of another major version, or an impossible build */
    BITMOSAIC_BAD_JOB = -2,        /* images or result buffer have another size than the job */
    BITMOSAIC_STREAMS_FAILED = -3, /* a transfer failed; the core is idle again */
    BITMOSAIC_TIMED_OUT = -4,      /* the job took longer than it may; the core is idle again */
    BITMOSAIC_STUCK = -5           /* neither that nor an abort came to an end: reset the core */
};

enum bitmosaic_stream { BITMOSAIC_WEIGHTS, BITMOSAIC_ACTIVATIONS };

/* Packets back to back in memory. end[p] is the number of the last beat of packet p, counted from the image's start:
 * TLAST is on it. */
struct bitmosaic_image {
    const uint8_t *bytes;
    size_t size;
    const uint32_t *end;
    uint32_t packets;
};

/* What the system provides. `context` goes to every function. */
struct bitmosaic_platform {
    void *context;

    /* Registers, by byte offset. An access must not overtake an earlier one: map them as device memory. */
    uint32_t (*read)(void *context, size_t offset);
    void (*write)(void *context, size_t offset, uint32_t value);

    /* A clock that only goes forward, and wraps. */
    uint32_t (*now)(void *context);

    /* Sleep until the core's interrupt, or for so many ticks. NULL: poll. */
    void (*sleep)(void *context, uint32_t ticks);

    /* What the CPU stored is seen by the DMA before what it does next; NULL where memory is coherent and in order. */
    void (*barrier)(void *context);
    /* Write a range of the caches back to memory; drop it from them. NULL where the DMA sees the caches. */
    void (*clean)(void *context, const void *bytes, size_t size);
    void (*invalidate)(void *context, void *bytes, size_t size);

    /* Queue packets [first, first + count) of an image and return at once. What is queued for the two streams proceeds
     * independently, each in order. 0; 1: no room now, ask again; negative: failed. */
    int (*send)(void *context, enum bitmosaic_stream stream, const struct bitmosaic_image *image, uint32_t first,
                uint32_t count);
    /* Take results while the others proceed: the bytes that TKEEP names, one after another. 0, or negative: failed. */
    int (*receive)(void *context, void *bytes, size_t size);
    /* 1 while something that was queued is under way, 0 when all is sent and received, negative: failed. */
    int (*poll)(void *context);
    /* After an abort: drop what is queued, let transfers that have begun come to their end (the core takes and drops
     * them), drop what the core still offers at m_axis_results (at most two beats). 0, or negative: failed. */
    int (*settle)(void *context);
};

/* A core that was found, and what its build is. */
struct bitmosaic_device {
    const struct bitmosaic_platform *platform;
    uint32_t rows, columns, lanes, token_sets, chunk, block_outputs, group_sizes, datatypes, max_inputs, max_outputs;
};

struct bitmosaic_job {
    uint32_t tokens, inputs, outputs;
    uint32_t group_size; /* BITMOSAIC_CORE__GROUP_SIZE__* */
    uint32_t fp16;       /* 1: FP16 results, 0: FP32 */
    uint32_t datatypes;  /* bit d allows BITMOSAIC_DATATYPE d */
    struct bitmosaic_image weights, activations;
    void *results;       /* in the order of bitmosaic_result(); cache lines of their own */
    size_t results_size;
    uint32_t ticks;      /* how long it may take */
};

/* How the core cuts a job: parts of each kind, and the size of all of them but the last. */
struct bitmosaic_tiling {
    uint32_t token_blocks, block_tokens;
    uint32_t super_blocks, super_outputs;
    uint32_t chunks, chunk_inputs;
    uint32_t blocks; /* of `rows` output channels, all super-blocks together */
};

/* What ran, from the last start on. */
struct bitmosaic_counters {
    uint64_t cycles, busy, stalled, macs;
    uint32_t errors;       /* number */
    uint32_t error_flags;  /* bit c - 1: error code c */
    uint32_t numeric_flags;
};

/* Finds the core and ends whatever runs on it. */
int bitmosaic_open(struct bitmosaic_device *device, const struct bitmosaic_platform *platform, uint32_t ticks);

/* The special values: 0..3 of FP3, 4..7 of FP4 in half-units. All are tried; a refused one stays as it was. */
int bitmosaic_set_specials(const struct bitmosaic_device *device, const int8_t values[8]);

/* Cuts a job; BITMOSAIC_CORE__CORE_ERROR__ZERO_SIZE or __SIZE_LIMIT where the core would refuse it. */
int bitmosaic_tile(const struct bitmosaic_device *device, uint32_t tokens, uint32_t inputs, uint32_t outputs,
                   struct bitmosaic_tiling *tiling);

/* Place of an output in `results`, counted in results. */
size_t bitmosaic_result(const struct bitmosaic_device *device, const struct bitmosaic_job *job, uint32_t token,
                        uint32_t output);

/* Runs a whole layer. With a positive code other than that of a refused start all results are there, and those that the
 * error concerns are NaN. After a negative one they are not; the next job can start unless it is BITMOSAIC_STUCK. */
int bitmosaic_run(const struct bitmosaic_device *device, const struct bitmosaic_job *job);

void bitmosaic_read_counters(const struct bitmosaic_device *device, struct bitmosaic_counters *counters);

#endif
