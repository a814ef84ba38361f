/* The C driver as a library for Python: one session, a transport of callbacks. */
#include "model.h"

static vitrify_session session;
static vitrify_transport transport;

int32_t test_open(const vitrify_transport *given, uint32_t limit_ms, uint32_t cycle_limit)
{
    transport = *given;
    return vitrify_open(&session, &transport, &model_program, limit_ms, cycle_limit);
}

int32_t test_start(const uint8_t *input, uint32_t task)
{
    return vitrify_start(&session, input, task);
}

int32_t test_wait(uint8_t *output)
{
    return vitrify_wait(&session, output);
}

uint64_t test_info(void)
{
    return session.error_info;
}

uint32_t test_slots(void)
{
    return session.slots;
}

int32_t test_counter(uint32_t offset, uint64_t *value)
{
    return vitrify_counter(&session, offset, value);
}

int32_t test_pack_pixels(const uint8_t *pixels, uint32_t order, uint32_t index, uint8_t *region)
{
    return vitrify_pack_pixels(&model_program, pixels, order, index, region);
}

int32_t test_pack_floats(const float *values, uint32_t index, uint8_t *region)
{
    return vitrify_pack_floats(&model_program, values, index, region);
}

double test_value(uint32_t output, const uint8_t *region, uint32_t index, uint32_t element)
{
    return vitrify_value(&model_program, &model_program.outputs[output], region, index, element);
}

void test_unpack(uint32_t output, const uint8_t *region, uint32_t index, float *values)
{
    vitrify_unpack(&model_program, &model_program.outputs[output], region, index, values);
}
