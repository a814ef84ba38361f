/*
 * Driver of a Vitrify core in C99: no heap, no library, no operating system.
 *
 * A transport (registers and a piece of the core's memory) comes from vitrify_mapped.h, from
 * vitrify_uio.h, or from you; a program from `vitrify export`.  Functions return VITRIFY_OK, an
 * error of the core (VITRIFY_ERROR_... of vitrify_regs.h, positive), or one of the codes below
 * (negative).  A session belongs to one thread.  Processors must be little endian.
 */
#ifndef VITRIFY_H
#define VITRIFY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VITRIFY_OK 0
#define VITRIFY_NO_CORE (-1)      /* nothing answers with the right MAGIC */
#define VITRIFY_WRONG_CORE (-2)   /* the core is of another architecture or contract */
#define VITRIFY_NO_ROOM (-3)      /* the program and one job do not fit the memory */
#define VITRIFY_BAD_MEMORY (-4)   /* the memory does not hold what was written */
#define VITRIFY_TIMED_OUT (-5)    /* no result within the time limit */
#define VITRIFY_RESET_STUCK (-6)  /* the core does not come out of its reset */
#define VITRIFY_JOBS_LOST (-7)    /* somebody else reset the core or uses it */
#define VITRIFY_QUEUE_FULL (-8)   /* no room for a further job: wait for one, or open the session */
#define VITRIFY_NO_JOB (-9)       /* there is no job to wait for */
#define VITRIFY_BAD_VALUE (-10)   /* a value that is no finite number, or no pixel is taken */
#define VITRIFY_LINK (-11)        /* the transport failed */
#define VITRIFY_BUSY (-12)        /* another process has the core */

/* Pixels: [channel][row][column], or [row][column][channel]. */
#define VITRIFY_PLANAR 0u
#define VITRIFY_INTERLEAVED 1u

/* Types of results. */
#define VITRIFY_FLOAT32 0u
#define VITRIFY_FLOAT64 1u
#define VITRIFY_INTEGER 2u

/* The way to a core.  Functions return VITRIFY_OK or a negative code, which ends the call that
   needed them.  Offsets into the memory and sizes are even. */
typedef struct vitrify_transport {
    void *context;
    int32_t (*read_register)(void *context, uint32_t offset, uint32_t *value);
    int32_t (*write_register)(void *context, uint32_t offset, uint32_t value);
    int32_t (*read_memory)(void *context, uint32_t offset, uint8_t *data, uint32_t size);
    int32_t (*write_memory)(void *context, uint32_t offset, const uint8_t *data, uint32_t size);
    /* Return when the core may have something to say, after a few milliseconds at the latest. */
    int32_t (*wait)(void *context);
    /* A clock, which may start anywhere and wraps. */
    uint32_t (*milliseconds)(void *context);
    /* Address, as the core sees it, of offset 0: a multiple of VITRIFY_ALIGNMENT. */
    uint64_t memory_base;
    uint32_t memory_size;
} vitrify_transport;

/* How pictures become the bytes of an input region (vitrify.program.spec.InputSpec). */
typedef struct vitrify_input {
    uint32_t channels, height, width;
    uint32_t patch_height, patch_width, stride_y, stride_x;
    uint32_t pad_top, pad_left, patches_x;
    uint32_t prefix, rows;
    uint32_t block_count;
    const uint32_t *blocks;   /* first row and number of rows of each piece */
    const double *multiplier; /* of each channel: byte = multiplier * value + offset, rounded */
    const double *offset;
    const int8_t *padding;    /* of each channel: byte of what lies outside */
    const int8_t *pixels;     /* [channel][256]: byte of a pixel; NULL: only floats are taken */
} vitrify_input;

/* How the bytes of an output region become numbers (vitrify.program.spec.OutputSpec):
   (integer - zero_point) * scale * factor + shift. */
typedef struct vitrify_output {
    const char *name;
    uint32_t offset, rows, channels, bits;
    int32_t zero_point;
    const double *scale, *factor, *shift;
    uint32_t scale_step, factor_step, shift_step; /* 1: one value a channel; 0: one for all */
    uint32_t count;                               /* numbers of a result */
    uint32_t dimensions;
    const uint32_t *shape; /* axes are split where they have several steps */
    int32_t start;
    const int32_t *steps; /* NULL: all integers in their order */
    uint32_t type;
    double low, high; /* bounds of VITRIFY_INTEGER */
} vitrify_output;

typedef struct vitrify_program {
    uint32_t arch_hash, contract;
    uint32_t depth; /* bytes of a word of the layout */
    uint32_t instructions;
    uint32_t image_bytes, input_bytes, output_bytes; /* the latter of a job */
    uint32_t batch;                                  /* pictures of a job, one after the other */
    const uint8_t *image;
    const uint8_t *signature; /* VITRIFY_SIGNATURE_BYTES (vitrify_regs.h) of a digest of all this */
    const vitrify_input *input;
    const vitrify_output *outputs;
    uint32_t output_count;
} vitrify_program;

/* A core and a program on it; for the driver's eyes only, but for error_info. */
typedef struct vitrify_session {
    const vitrify_transport *transport;
    const vitrify_program *program;
    uint32_t limit_ms, cycle_limit;
    uint32_t inputs, input_step, outputs, output_step, slots;
    uint32_t pushed, done;
    uint32_t certain;
    int32_t failure;
    /* Of the last error of the core: the address of the burst, the number of the instruction, or
       the offset of the register. */
    uint64_t error_info;
} vitrify_session;

/* Identify the core, put the program into its memory, where it is not already, and verify it.
   Several sessions may take turns with one core: whoever finds another program uploads its own.

   limit_ms: longest wait for a result, and for a reset.
   cycle_limit: cycles in units of VITRIFY_LIMIT_CYCLES after which the core itself gives a job up
   with VITRIFY_ERROR_TIMEOUT; 0: no limit. */
int32_t vitrify_open(vitrify_session *session, const vitrify_transport *transport,
                     const vitrify_program *program, uint32_t limit_ms, uint32_t cycle_limit);

/* Queue a job: an input region of program->input_bytes, and its register TASK (0 where the model
   has no tasks).  The region may be used again at once. */
int32_t vitrify_start(vitrify_session *session, const uint8_t *input, uint32_t task);

/* Wait for the oldest job and copy its output region, program->output_bytes.  After an error all
   jobs are gone, and the next vitrify_start begins from a reset. */
int32_t vitrify_wait(vitrify_session *session, uint8_t *output);

/* Both. */
int32_t vitrify_run(vitrify_session *session, const uint8_t *input, uint32_t task,
                    uint8_t *output);

/* A performance counter, by the offset of its lower register (VITRIFY_CYCLES_LO, ...). */
int32_t vitrify_counter(vitrify_session *session, uint32_t offset, uint64_t *value);

/* What a code is called, without its prefix: "BUS_READ". */
const char *vitrify_error_name(int32_t code);

/* Picture number `index` of a job into its input region. */
int32_t vitrify_pack_pixels(const vitrify_program *program, const uint8_t *pixels, uint32_t order,
                            uint32_t index, uint8_t *region);

/* The same from the model's own floats, [channel][row][column]. */
int32_t vitrify_pack_floats(const vitrify_program *program, const float *values, uint32_t index,
                            uint8_t *region);

/* One number of a result, of picture number `index` of a job: what NumPy holds in the result's
   type, as a double; a result of type float16 as float32, not rounded to it.
   `element` is less than output->count. */
double vitrify_value(const vitrify_program *program, const vitrify_output *output,
                     const uint8_t *region, uint32_t index, uint32_t element);

/* All numbers of a result. */
void vitrify_unpack(const vitrify_program *program, const vitrify_output *output,
                    const uint8_t *region, uint32_t index, float *values);

#ifdef __cplusplus
}
#endif

#endif
