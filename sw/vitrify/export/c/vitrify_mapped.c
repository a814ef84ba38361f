/* Transport to a core whose registers and memory are mapped.  See vitrify_mapped.h.

   What was written to the memory is complete before a register is written, and nothing of it is
   read before a register that was asked for.  The memory is accessed by whole, aligned words, as
   device memory demands. */
#include "vitrify_mapped.h"

static void barrier(void)
{
#if defined(__arm__) || defined(__aarch64__)
    __asm__ volatile("dsb sy" ::: "memory");
#else
    __sync_synchronize();
#endif
}

static int32_t read_register(void *context, uint32_t offset, uint32_t *value)
{
    const vitrify_mapped *mapped = (const vitrify_mapped *)context;

    *value = mapped->registers[offset / 4u];
    barrier();
    return VITRIFY_OK;
}

static int32_t write_register(void *context, uint32_t offset, uint32_t value)
{
    const vitrify_mapped *mapped = (const vitrify_mapped *)context;

    barrier();
    mapped->registers[offset / 4u] = value;
    return VITRIFY_OK;
}

static int32_t read_memory(void *context, uint32_t offset, uint8_t *data, uint32_t size)
{
    const vitrify_mapped *mapped = (const vitrify_mapped *)context;
    volatile uint32_t *from = &mapped->memory[offset / 4u];
    const uint32_t skip = offset % 4u;
    uint32_t word = 0u;
    uint32_t i;

    if (mapped->invalidate != NULL) {
        mapped->invalidate(mapped->context, from, size + skip);
    }
    for (i = skip; i < (size + skip); i++) {
        if ((i == skip) || ((i % 4u) == 0u)) {
            word = from[i / 4u];
        }
        data[i - skip] = (uint8_t)((word >> (8u * (i % 4u))) & 0xffu);
    }
    return VITRIFY_OK;
}

static int32_t write_memory(void *context, uint32_t offset, const uint8_t *data, uint32_t size)
{
    const vitrify_mapped *mapped = (const vitrify_mapped *)context;
    volatile uint32_t *to = &mapped->memory[offset / 4u];
    const uint32_t skip = offset % 4u;
    const uint32_t end = size + skip;
    uint32_t word = 0u;
    uint32_t i;

    for (i = skip; i < end; i++) {
        if (((i == skip) && (skip != 0u)) || (((i % 4u) == 0u) && ((end - i) < 4u))) {
            word = to[i / 4u]; /* a word of which only some bytes are written */
        }
        word &= ~((uint32_t)0xffu << (8u * (i % 4u)));
        word |= (uint32_t)data[i - skip] << (8u * (i % 4u));
        if (((i % 4u) == 3u) || (i == (end - 1u))) {
            to[i / 4u] = word;
        }
    }
    if (mapped->clean != NULL) {
        mapped->clean(mapped->context, to, end);
    }
    return VITRIFY_OK;
}

static int32_t wait(void *context)
{
    const vitrify_mapped *mapped = (const vitrify_mapped *)context;

    return (mapped->wait != NULL) ? mapped->wait(mapped->context) : VITRIFY_OK;
}

static uint32_t milliseconds(void *context)
{
    const vitrify_mapped *mapped = (const vitrify_mapped *)context;

    return mapped->milliseconds(mapped->context);
}

void vitrify_mapped_transport(vitrify_mapped *mapped, uint64_t base, uint32_t size,
                              vitrify_transport *transport)
{
    transport->context = mapped;
    transport->read_register = read_register;
    transport->write_register = write_register;
    transport->read_memory = read_memory;
    transport->write_memory = write_memory;
    transport->wait = wait;
    transport->milliseconds = milliseconds;
    transport->memory_base = base;
    transport->memory_size = size;
}
