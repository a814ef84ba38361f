/* Transport to a core whose registers and memory the processor sees: bare metal, or mapped. */
#ifndef VITRIFY_MAPPED_H
#define VITRIFY_MAPPED_H

#include "vitrify.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vitrify_mapped {
    volatile uint32_t *registers;
    volatile uint32_t *memory; /* starts at a multiple of VITRIFY_ALIGNMENT */
    void *context;             /* of the functions below */
    uint32_t (*milliseconds)(void *context);
    /* Sleep until the interrupt, for a few milliseconds; NULL: poll. */
    int32_t (*wait)(void *context);
    /* Where the memory is cached: write what was written back to it before the core reads it, and
       forget what is in the cache before the processor reads it.  NULL: it is not cached. */
    void (*clean)(void *context, volatile uint32_t *start, uint32_t size);
    void (*invalidate)(void *context, volatile uint32_t *start, uint32_t size);
} vitrify_mapped;

/* A transport over `mapped`, which must stay; `base` is where the core finds the memory of `size`
   bytes. */
void vitrify_mapped_transport(vitrify_mapped *mapped, uint64_t base, uint32_t size,
                              vitrify_transport *transport);

#ifdef __cplusplus
}
#endif

#endif
