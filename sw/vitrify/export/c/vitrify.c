/* Driver of a Vitrify core: registers, memory, jobs.  See vitrify.h. */
#include "vitrify.h"

#include "vitrify_regs.h"

/* The program is written and compared in blocks of so many bytes. */
#define BLOCK_BYTES 256u

static void note(vitrify_session *session, int32_t code)
{
    if (session->failure == VITRIFY_OK) {
        session->failure = code;
    }
}

/* After a failure of the transport registers read as 0, and nothing is written any more. */
static uint32_t get(vitrify_session *session, uint32_t offset)
{
    const vitrify_transport *transport = session->transport;
    uint32_t value = 0u;

    if (session->failure == VITRIFY_OK) {
        note(session, transport->read_register(transport->context, offset, &value));
    }
    return (session->failure == VITRIFY_OK) ? value : 0u;
}

static void put(vitrify_session *session, uint32_t offset, uint32_t value)
{
    const vitrify_transport *transport = session->transport;

    if (session->failure == VITRIFY_OK) {
        note(session, transport->write_register(transport->context, offset, value));
    }
}

static uint64_t get_wide(vitrify_session *session, uint32_t offset)
{
    const uint32_t low = get(session, offset);
    const uint32_t high = get(session, offset + 4u);

    return ((uint64_t)high << 32) | (uint64_t)low;
}

static void put_wide(vitrify_session *session, uint32_t offset, uint64_t value)
{
    put(session, offset, (uint32_t)(value & 0xffffffffu));
    put(session, offset + 4u, (uint32_t)(value >> 32));
}

static void load(vitrify_session *session, uint32_t offset, uint8_t *data, uint32_t size)
{
    const vitrify_transport *transport = session->transport;

    if (session->failure == VITRIFY_OK) {
        note(session, transport->read_memory(transport->context, offset, data, size));
    }
}

static void store(vitrify_session *session, uint32_t offset, const uint8_t *data, uint32_t size)
{
    const vitrify_transport *transport = session->transport;

    if (session->failure == VITRIFY_OK) {
        note(session, transport->write_memory(transport->context, offset, data, size));
    }
}

static uint32_t now(const vitrify_session *session)
{
    const vitrify_transport *transport = session->transport;

    return transport->milliseconds(transport->context);
}

/* Wait a moment; whether the time that began at `start` is over. */
static uint32_t late(vitrify_session *session, uint32_t start)
{
    const vitrify_transport *transport = session->transport;
    uint32_t over = 1u;

    if ((now(session) - start) < session->limit_ms) {
        note(session, transport->wait(transport->context));
        over = 0u;
    }
    return over;
}

static uint32_t differs(const uint8_t *a, const uint8_t *b, uint32_t size)
{
    uint32_t i;
    uint32_t different = 0u;

    for (i = 0u; i < size; i++) {
        different |= (uint32_t)a[i] ^ (uint32_t)b[i];
    }
    return (different != 0u) ? 1u : 0u;
}

static uint64_t aligned(uint64_t size)
{
    return (size + (VITRIFY_ALIGNMENT - 1u)) & ~(uint64_t)(VITRIFY_ALIGNMENT - 1u);
}

/* Where the driver that uploaded a program signs it. */
static uint32_t signature_offset(const vitrify_session *session)
{
    return (session->transport->memory_size & ~(uint32_t)1u) - VITRIFY_SIGNATURE_BYTES;
}

static int32_t identify(vitrify_session *session)
{
    const vitrify_program *program = session->program;
    int32_t code = VITRIFY_OK;

    if (get(session, VITRIFY_MAGIC) != VITRIFY_MAGIC_VALUE) {
        code = VITRIFY_NO_CORE;
    } else if ((get(session, VITRIFY_VERSION) != program->contract) ||
               (get(session, VITRIFY_ARCH_HASH) != program->arch_hash)) {
        code = VITRIFY_WRONG_CORE;
    } else {
        /* It is the right one. */
    }
    return (session->failure != VITRIFY_OK) ? session->failure : code;
}

static int32_t place(vitrify_session *session)
{
    const vitrify_program *program = session->program;
    const uint64_t inputs = aligned(program->image_bytes);
    const uint64_t step_in = aligned(program->input_bytes);
    const uint64_t step_out = aligned(program->output_bytes);
    const uint64_t taken = inputs + VITRIFY_SIGNATURE_BYTES;
    const uint64_t size = session->transport->memory_size;
    uint64_t slots = 0u;

    if (size > taken) {
        slots = (size - taken) / (step_in + step_out);
    }
    if (slots > VITRIFY_QUEUE_DEPTH) {
        slots = VITRIFY_QUEUE_DEPTH;
    }
    session->slots = (uint32_t)slots;
    session->inputs = (uint32_t)inputs;
    session->input_step = (uint32_t)step_in;
    session->outputs = (uint32_t)(inputs + (slots * step_in));
    session->output_step = (uint32_t)step_out;
    return (slots == 0u) ? VITRIFY_NO_ROOM : VITRIFY_OK;
}

static int32_t reset(vitrify_session *session)
{
    const uint32_t start = now(session);
    int32_t code = VITRIFY_OK;

    put(session, VITRIFY_CONTROL,
        VITRIFY_CONTROL_RESET_MASK | VITRIFY_CONTROL_CLEAR_COUNTERS_MASK);
    while ((code == VITRIFY_OK) &&
           ((get(session, VITRIFY_STATUS) & VITRIFY_STATUS_BUSY_MASK) != 0u)) {
        if (late(session, start) != 0u) {
            code = VITRIFY_RESET_STUCK;
        }
    }
    if ((code == VITRIFY_OK) &&
        ((get(session, VITRIFY_STATUS) & VITRIFY_STATUS_BUS_LOST_MASK) != 0u)) {
        code = VITRIFY_ERROR_BUS_LOST;
    }
    return (session->failure != VITRIFY_OK) ? session->failure : code;
}

/* Blocks that differ are written; then every block is right, and signed. */
static int32_t upload(vitrify_session *session)
{
    static const uint8_t unsigned_[VITRIFY_SIGNATURE_BYTES] = {0u};
    const vitrify_program *program = session->program;
    uint8_t found[BLOCK_BYTES];
    uint32_t at = 0u;
    int32_t code = VITRIFY_OK;

    /* Whoever is interrupted here leaves a memory that no driver takes for its own. */
    store(session, signature_offset(session), unsigned_, VITRIFY_SIGNATURE_BYTES);
    while ((at < program->image_bytes) && (code == VITRIFY_OK)) {
        const uint8_t *block = &program->image[at];
        const uint32_t left = program->image_bytes - at;
        const uint32_t size = (left < BLOCK_BYTES) ? left : BLOCK_BYTES;

        load(session, at, found, size);
        if ((session->failure == VITRIFY_OK) && (differs(found, block, size) != 0u)) {
            store(session, at, block, size);
            load(session, at, found, size);
            if (differs(found, block, size) != 0u) {
                code = VITRIFY_BAD_MEMORY;
            }
        }
        if (session->failure != VITRIFY_OK) {
            code = session->failure;
        }
        at += size;
    }
    if (code == VITRIFY_OK) {
        store(session, signature_offset(session), program->signature, VITRIFY_SIGNATURE_BYTES);
        code = session->failure;
    }
    return code;
}

/* Put the program into memory, unless it is certain that it is there. */
static int32_t provide(vitrify_session *session)
{
    uint8_t found[VITRIFY_SIGNATURE_BYTES];
    int32_t code = VITRIFY_OK;
    uint32_t other = 1u;

    if (session->certain != 0u) {
        load(session, signature_offset(session), found, VITRIFY_SIGNATURE_BYTES);
        other = (session->failure != VITRIFY_OK)
                    ? 1u
                    : differs(found, session->program->signature, VITRIFY_SIGNATURE_BYTES);
    }
    if (other != 0u) {
        code = upload(session);
    }
    return code;
}

static void prepare(vitrify_session *session)
{
    const uint64_t base = session->transport->memory_base;
    const uint64_t outputs = base + session->outputs;
    const uint64_t end = outputs + ((uint64_t)session->slots * session->output_step);

    put_wide(session, VITRIFY_PROGRAM_BASE_LO, base);
    /* Limits first: should a reset come in between, the windows stay shut. */
    put_wide(session, VITRIFY_READ_LIMIT_LO, end);
    put_wide(session, VITRIFY_READ_BASE_LO, base);
    put_wide(session, VITRIFY_WRITE_LIMIT_LO, end);
    put_wide(session, VITRIFY_WRITE_BASE_LO, outputs);
    put(session, VITRIFY_PROGRAM_COUNT, session->program->instructions);
    put(session, VITRIFY_CYCLE_LIMIT, session->cycle_limit);
    put(session, VITRIFY_IRQ_STATUS, VITRIFY_IRQ_STATUS_DONE_MASK | VITRIFY_IRQ_STATUS_ERROR_MASK);
    put(session, VITRIFY_IRQ_ENABLE, VITRIFY_IRQ_ENABLE_DONE_MASK | VITRIFY_IRQ_ENABLE_ERROR_MASK);
}

/* Jobs end with a code: the next one begins from a reset. */
static int32_t give_up(vitrify_session *session, int32_t code)
{
    session->pushed = 0u;
    session->done = 0u;
    session->certain = 0u;
    return code;
}

int32_t vitrify_open(vitrify_session *session, const vitrify_transport *transport,
                     const vitrify_program *program, uint32_t limit_ms, uint32_t cycle_limit)
{
    int32_t code;

    session->transport = transport;
    session->program = program;
    session->slots = 0u;
    session->limit_ms = limit_ms;
    session->cycle_limit = cycle_limit;
    session->failure = VITRIFY_OK;
    session->error_info = 0u;
    (void)give_up(session, VITRIFY_OK);
    code = identify(session);
    if (code == VITRIFY_OK) {
        code = place(session);
    }
    if (code == VITRIFY_OK) {
        code = reset(session);
    }
    if (code == VITRIFY_OK) {
        code = provide(session);
    }
    session->certain = (code == VITRIFY_OK) ? 1u : 0u;
    return code;
}

int32_t vitrify_start(vitrify_session *session, const uint8_t *input, uint32_t task)
{
    const uint32_t slot = (session->slots != 0u) ? (session->pushed % session->slots) : 0u;
    const uint32_t source = session->inputs + (slot * session->input_step);
    const uint32_t target = session->outputs + (slot * session->output_step);
    const uint64_t base = session->transport->memory_base;
    int32_t code = VITRIFY_OK;

    session->failure = VITRIFY_OK;
    if ((session->pushed - session->done) >= session->slots) {
        return VITRIFY_QUEUE_FULL;
    }
    if (session->pushed == 0u) {
        /* Whatever happened before: an error, a host that died, somebody else's job. */
        code = reset(session);
        if (code == VITRIFY_OK) {
            code = provide(session);
        }
        if (code == VITRIFY_OK) {
            session->certain = 0u;
            prepare(session);
        }
    }
    if (code == VITRIFY_OK) {
        store(session, source, input, session->program->input_bytes);
        put_wide(session, VITRIFY_INPUT_BASE_LO, base + source);
        put_wide(session, VITRIFY_OUTPUT_BASE_LO, base + target);
        put(session, VITRIFY_TASK, task);
        put(session, VITRIFY_JOB_PUSH, 1u);
        code = session->failure;
    }
    if (code == VITRIFY_OK) {
        session->pushed++;
    } else {
        code = give_up(session, code);
    }
    return code;
}

/* The core's error, or VITRIFY_OK. */
static int32_t error_of(vitrify_session *session, uint32_t status)
{
    int32_t code = VITRIFY_OK;

    if ((status & VITRIFY_STATUS_ERROR_MASK) != 0u) {
        code = (int32_t)get(session, VITRIFY_ERROR_CODE);
        session->error_info = get_wide(session, VITRIFY_ERROR_INFO_LO);
    }
    return code;
}

/* Jobs that are done, if the core is well. */
static int32_t look(vitrify_session *session, uint32_t *finished)
{
    uint32_t status;
    int32_t code;
    uint32_t lost;

    put(session, VITRIFY_IRQ_STATUS, VITRIFY_IRQ_STATUS_DONE_MASK);
    status = get(session, VITRIFY_STATUS);
    code = error_of(session, status);
    *finished = get(session, VITRIFY_JOBS_DONE);
    if (code == VITRIFY_OK) {
        if ((status & VITRIFY_STATUS_BUSY_MASK) != 0u) {
            lost = ((*finished < session->done) || (*finished > session->pushed)) ? 1u : 0u;
        } else {
            lost = ((*finished != session->pushed) ||
                    (get_wide(session, VITRIFY_READ_LIMIT_LO) == 0u))
                       ? 1u
                       : 0u;
        }
        if (lost != 0u) {
            /* It may have stopped between the two looks. */
            code = error_of(session, get(session, VITRIFY_STATUS));
            code = (code == VITRIFY_OK) ? VITRIFY_JOBS_LOST : code;
        }
    }
    return (session->failure != VITRIFY_OK) ? session->failure : code;
}

int32_t vitrify_wait(vitrify_session *session, uint8_t *output)
{
    const uint32_t start = now(session);
    uint32_t finished = session->done;
    uint32_t slot;
    int32_t code = VITRIFY_OK;

    session->failure = VITRIFY_OK;
    if (session->pushed == session->done) {
        return VITRIFY_NO_JOB;
    }
    while ((code == VITRIFY_OK) && (finished == session->done)) {
        code = look(session, &finished);
        if ((code == VITRIFY_OK) && (finished == session->done) && (late(session, start) != 0u)) {
            code = VITRIFY_TIMED_OUT;
        }
    }
    if (code == VITRIFY_OK) {
        slot = session->done % session->slots;
        load(session, session->outputs + (slot * session->output_step), output,
             session->program->output_bytes);
        code = session->failure;
    }
    if (code == VITRIFY_OK) {
        session->done++;
        if (session->done == session->pushed) {
            session->pushed = 0u;
            session->done = 0u;
            session->certain = 1u;
        }
    } else {
        code = give_up(session, code);
    }
    return code;
}

int32_t vitrify_run(vitrify_session *session, const uint8_t *input, uint32_t task, uint8_t *output)
{
    int32_t code = vitrify_start(session, input, task);

    if (code == VITRIFY_OK) {
        code = vitrify_wait(session, output);
    }
    return code;
}

int32_t vitrify_counter(vitrify_session *session, uint32_t offset, uint64_t *value)
{
    session->failure = VITRIFY_OK;
    *value = get_wide(session, offset);
    return session->failure;
}

const char *vitrify_error_name(int32_t code)
{
    static const char *const core[] = {VITRIFY_ERROR_NAMES};
    static const char *const driver[] = {
        "OK",          "NO_CORE",   "WRONG_CORE", "NO_ROOM", "BAD_MEMORY", "TIMED_OUT",
        "RESET_STUCK", "JOBS_LOST", "QUEUE_FULL", "NO_JOB",  "BAD_VALUE",  "LINK",
        "BUSY",
    };
    const char *name = "UNKNOWN";

    if ((code > 0) && ((uint32_t)code < (sizeof(core) / sizeof(core[0])))) {
        name = core[code];
    } else if ((code <= 0) && (code > -(int32_t)(sizeof(driver) / sizeof(driver[0])))) {
        name = driver[-code];
    } else {
        /* A code of the transport's own. */
    }
    return name;
}
