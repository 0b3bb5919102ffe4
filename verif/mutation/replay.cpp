// Replays recorded traffic to mutants. Usage: replay LAYOUT MUTANT... -- TRACE...; a line per mutant on standard output.
//
// First cycle by cycle: a payload that differs while valid is as recorded kills the mutant. Where anything else differs
// first, the trace is replayed by its transfers: a stream's next transfer is offered when all recorded before it have
// been made, however long that takes. Then only what is transferred counts, that it comes, and roughly when.
#include "Vtop.h"
#include "verilated.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr long AHEAD_AFTER = 64;   // cycles without a transfer until later transfers are offered, too
constexpr long AHEAD = 512;        // recorded cycles that they may be ahead
constexpr long HANG = 4096;        // cycles without a transfer
constexpr long QUIET = 200;        // recorded cycles after which levels must be what they were
constexpr double SLOWER = 1.02;    // the rates of docs are promised, single cycles are not
constexpr long SLACK = 256;

struct Field { int low, width; };
struct Stream { std::string name; int sent, valid, ready; std::vector<Field> payload; };

int input_words, output_words, reset_bit, reset_active;
std::vector<Stream> streams;
std::vector<Field> levels;
std::vector<uint32_t> payload_mask, level_mask;

bool bit(const uint32_t* words, int index) { return words[index / 32] >> index % 32 & 1; }
void set(uint32_t* words, int index, bool value) {
    words[index / 32] = (words[index / 32] & ~(1u << index % 32)) | uint32_t(value) << index % 32;
}

struct Trace {
    std::vector<uint32_t> data, loose;     // loose: care of transfers that a delay does not change
    std::vector<std::vector<long>> moves;  // per stream, cycles of its transfers
    long cycles = 0;
    int row() const { return input_words + 2 * output_words; }
    const uint32_t* in(long t) const { return &data[t * row()]; }
    const uint32_t* out(long t) const { return in(t) + input_words; }
    const uint32_t* care(long t) const { return out(t) + output_words; }
    uint32_t* care_loose(long t) { return &loose[t * output_words]; }
    bool in_reset(long t) const { return bit(in(t), reset_bit) == bool(reset_active); }

    explicit Trace(const char* path) {
        std::ifstream file(path, std::ios::binary | std::ios::ate);
        const long size = file.tellg();
        file.seekg(0);
        data.resize(size / 4);
        file.read(reinterpret_cast<char*>(data.data()), size);
        cycles = long(data.size()) / row();
        moves.resize(streams.size());
        bool seen_reset = false;
        for (long t = 0; t < cycles; t++) {
            loose.insert(loose.end(), care(t), care(t) + output_words);
            seen_reset |= in_reset(t);
            for (size_t s = 0; s < streams.size() && seen_reset && !in_reset(t); s++) {
                const uint32_t *from = streams[s].sent ? out(t) : in(t), *to = streams[s].sent ? in(t) : out(t);
                if (bit(from, streams[s].valid) && bit(to, streams[s].ready)) moves[s].push_back(t);
            }
        }
    }
};

struct Model {
    VerilatedContext context;
    std::unique_ptr<Vtop> top;
    explicit Model(int mutant) {
        context.randReset(2);
        context.randSeed(1);
        top = std::make_unique<Vtop>(&context);
        top->mutant_select = mutant;
        top->clk = 0;
    }
    void settle(const uint32_t* inputs) {
        for (int k = 0; k < input_words; k++) top->i[k] = inputs[k];
        top->clk = 0;
        top->eval();
    }
    void edge() {
        top->clk = 1;
        top->eval();
    }
    const uint32_t* out() const { return top->o.data(); }
};

enum Outcome { SAME, WRONG, OTHER };
struct Verdict { const char* what; long cycle; };

Outcome exactly(int mutant, const Trace& trace, long& at) {
    Model model(mutant);
    for (long t = 0; t < trace.cycles; t++) {
        model.settle(trace.in(t));
        bool payload = false, other = false;
        for (int k = 0; k < output_words; k++) {
            const uint32_t differ = (model.out()[k] ^ trace.out(t)[k]) & trace.care(t)[k];
            payload |= differ & payload_mask[k];
            other |= differ & ~payload_mask[k];
        }
        if (payload || other) {
            at = t;
            return other ? OTHER : WRONG;
        }
        model.edge();
    }
    return SAME;
}

class Elastic {
public:
    // With a generator, cycles are added at random, and what differs then is not compared any more; nor are levels that
    // differ without them when `good`.
    Elastic(int mutant, Trace& trace, bool good, std::mt19937* lag) : trace(trace), model(mutant), good(good), lag(lag),
        next(streams.size()), offered(streams.size()), held(streams.size()), inputs(input_words) {}

    Verdict run() {
        long last_move = 0;
        for (long t = 0; t < trace.cycles; t++) {
            if (trace.in_reset(t)) {
                model.settle(trace.in(t));
                model.edge();
                real++;
                last_move = t;
                held.assign(streams.size(), {});
                continue;
            }
            const long idle_from = real;
            if (lag && (*lag)() % 8 == 0)
                for (int n = (*lag)() % 3 + 1; n > 0; n--)
                    if (!cycle(t, -1)) return {fault, t};
            do {
                const long idle = real - std::max(idle_from, moved);
                if (idle > HANG) return {"hang", t};
                if (!cycle(t, idle > AHEAD_AFTER ? t + AHEAD : t)) return {fault, t};
            } while (pending(t));
            for (const auto& list : trace.moves)
                if (moved_at(list, t)) last_move = t;
            if (t - last_move > QUIET && !levels_hold(t)) return {"register", t};
        }
        for (size_t s = 0; s < streams.size(); s++)
            if (streams[s].sent && !bit(trace.out(trace.cycles - 1), streams[s].valid) && bit(model.out(), streams[s].valid))
                return {"surplus", trace.cycles};
        return {real > SLOWER * trace.cycles + SLACK ? "slow" : nullptr, trace.cycles};
    }
    long masked = 0;

private:
    Trace& trace;
    Model model;
    bool good;
    std::mt19937* lag;
    std::vector<size_t> next;
    std::vector<char> offered;
    std::vector<std::vector<uint32_t>> held;  // outputs while a transfer waits
    std::vector<uint32_t> inputs;
    long real = 0, moved = 0;
    const char* fault = nullptr;

    static bool moved_at(const std::vector<long>& list, long t) { return std::binary_search(list.begin(), list.end(), t); }
    bool pending(long t) const {
        for (size_t s = 0; s < streams.size(); s++)
            if (next[s] < trace.moves[s].size() && trace.moves[s][next[s]] <= t) return true;
        return false;
    }
    bool excused(long t, int word, uint32_t differ, bool level = false) {
        if (!lag && !(good && level)) return false;
        trace.care_loose(t)[word] &= ~differ;
        masked++;
        return true;
    }
    bool same(const Stream& stream, const uint32_t* was, long t, const char* what) {
        for (const Field& field : stream.payload)
            for (int b = field.low; b < field.low + field.width; b++)
                if (bit(model.out(), b) != bit(was, b) && bit(trace.care_loose(t), b) && !excused(t, b / 32, 1u << b % 32)) {
                    fault = what;
                    return false;
                }
        return true;
    }
    bool levels_hold(long t) {
        for (int k = 0; k < output_words; k++) {
            const uint32_t differ = (model.out()[k] ^ trace.out(t)[k]) & trace.care_loose(t)[k] & level_mask[k];
            if (differ && !excused(t, k, differ, true)) return false;
        }
        return true;
    }
    // One cycle; transfers recorded up to cycle `until` are offered. False: a fault.
    bool cycle(long t, long until) {
        std::copy(trace.in(t), trace.in(t) + input_words, inputs.begin());
        for (size_t s = 0; s < streams.size(); s++) {
            const Stream& stream = streams[s];
            const bool due = next[s] < trace.moves[s].size() && trace.moves[s][next[s]] <= until && !reset_before(t, s);
            if (!stream.sent) {
                offered[s] |= due;
                set(inputs.data(), stream.valid, offered[s]);
                if (offered[s])
                    for (const Field& field : stream.payload)
                        for (int b = field.low; b < field.low + field.width; b++)
                            set(inputs.data(), b, bit(trace.in(trace.moves[s][next[s]]), b));
            } else {
                set(inputs.data(), stream.ready, due);
            }
        }
        model.settle(inputs.data());
        for (size_t s = 0; s < streams.size(); s++) {
            const Stream& stream = streams[s];
            if (!stream.sent) {
                if (offered[s] && bit(model.out(), stream.ready)) {
                    offered[s] = 0;
                    next[s]++;
                    moved = real;
                }
                continue;
            }
            const bool valid = bit(model.out(), stream.valid), ready = bit(inputs.data(), stream.ready);
            const bool known = next[s] < trace.moves[s].size();
            if (!held[s].empty()) {
                fault = "dropped";
                if (!valid) return false;
                if (known && !same(stream, held[s].data(), trace.moves[s][next[s]], "changed")) return false;
            }
            held[s].clear();
            if (valid && ready) {
                if (!same(stream, trace.out(trace.moves[s][next[s]]), trace.moves[s][next[s]], "value")) return false;
                next[s]++;
                moved = real;
            } else if (valid) {
                held[s].assign(model.out(), model.out() + output_words);
            }
        }
        model.edge();
        real++;
        return true;
    }
    bool reset_before(long t, size_t s) const {
        for (long c = t; c < trace.moves[s][next[s]]; c++)
            if (trace.in_reset(c)) return true;
        return false;
    }
};

void read_layout(const char* path) {
    std::ifstream file(path);
    int count, fields;
    file >> input_words >> output_words >> reset_bit >> reset_active >> count;
    payload_mask.resize(output_words);
    level_mask.resize(output_words);
    for (int s = 0; s < count; s++) {
        Stream stream;
        file >> stream.name >> stream.sent >> stream.valid >> stream.ready >> fields;
        for (int f = 0; f < fields; f++) {
            Field field;
            file >> field.low >> field.width;
            stream.payload.push_back(field);
            for (int b = field.low; b < field.low + field.width && stream.sent; b++) set(payload_mask.data(), b, true);
        }
        streams.push_back(stream);
    }
    file >> fields;
    for (int f = 0; f < fields; f++) {
        Field field;
        file >> field.low >> field.width;
        for (int b = field.low; b < field.low + field.width; b++) set(level_mask.data(), b, true);
    }
}

void judge(int mutant, std::vector<Trace>& traces) {
    bool timing = false;
    for (size_t n = 0; n < traces.size(); n++) {
        long at = 0;
        const Outcome outcome = exactly(mutant, traces[n], at);
        if (outcome == SAME) continue;
        Verdict verdict{"value", at};
        if (outcome == OTHER) verdict = Elastic(mutant, traces[n], false, nullptr).run();
        if (verdict.what) {
            std::printf("%d %s %zu %ld\n", mutant, verdict.what, n, verdict.cycle);
            return;
        }
        timing = true;
    }
    std::printf("%d %s 0 0\n", mutant, timing ? "timing" : "silent");
}

}  // namespace

int main(int argc, char** argv) {
    read_layout(argv[1]);
    std::vector<int> mutants;
    int next = 2;
    for (; std::string(argv[next]) != "--"; next++) mutants.push_back(std::atoi(argv[next]));
    std::vector<Trace> traces;
    for (next++; next < argc; next++) traces.emplace_back(argv[next]);
    std::mt19937 lag(1);
    for (size_t n = 0; n < traces.size(); n++) {
        long at = 0;
        if (exactly(0, traces[n], at) != SAME) {
            std::fprintf(stderr, "trace %zu: the design itself differs in cycle %ld\n", n, at);
            return 2;
        }
        long masked = 0;
        for (int k = 0; k < 4; k++) {
            Elastic elastic(0, traces[n], true, k == 0 ? nullptr : &lag);
            const Verdict verdict = elastic.run();
            masked += elastic.masked;
            if (verdict.what && !(k > 0 && verdict.what == std::string("slow"))) {
                std::fprintf(stderr, "trace %zu: the design itself: %s in cycle %ld\n", n, verdict.what, verdict.cycle);
                return 2;
            }
        }
        std::fprintf(stderr, "trace %zu: %ld cycles, %ld bits of transfers that a delay changes\n", n, traces[n].cycles, masked);
    }
    for (const int mutant : mutants) {
        std::fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            judge(mutant, traces);
            std::fflush(stdout);
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (status != 0) std::printf("%d crash 0 %d\n", mutant, WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    return 0;
}
