// CUB's reductions, timed as xtask/src/bench/reductions/arena.rs times ours: one call between two events, on the next part of memory that is
// gone round, behind a sum of other data that clears the second-level cache and keeps the device busy until all is queued. The data are
// the same, too (xtask/src/bench/reductions/reference.rs).
//
// `cargo xtask bench` compiles it where there is an nvcc and runs it twice: with --check FOLDER it only computes, and leaves each line's
// results there, as f32 one behind the other; without, it times. What it says is one JSON object a line on standard output.
//
//     cub_reference --device 0 --arena BYTES --before BYTES --repetitions 31 [--check FOLDER] LINE...
//
// A line is NUMBER:sum|max:flat:ELEMENTS, NUMBER:sum|max:segments:ELEMENTS:LENGTH, or NUMBER:sum|max:offsets:ELEMENTS:FILE, where the file
// has the segments' ends from 0 on as 64-bit integers.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include <cub/cub.cuh>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

namespace {

constexpr size_t kStep = 4096, kPattern = size_t{32} << 20;
// Calls before those that count, at least, and for as long.
constexpr int kWarmUp = 3;
constexpr std::chrono::milliseconds kAwake{20};

struct Line {
    int number;
    bool sum;
    std::string shape;
    int64_t elements, segment;
    std::vector<int64_t> cuts;

    int64_t results() const
    {
        if (shape == "flat") return 1;
        return shape == "segments" ? (elements + segment - 1) / segment : static_cast<int64_t>(cuts.size()) - 1;
    }
};

struct Options {
    int device = 0, repetitions = 31;
    size_t arena = 0, before = 0;
    std::string check;
    std::vector<Line> lines;
};

// The line that is at work, for the error that ends it.
int current = -1;

std::string quoted(const std::string& text)
{
    std::string all = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') all += '\\';
        all += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    return all + '"';
}

void say(const std::string& line)
{
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
}

[[noreturn]] void fail(const std::string& why)
{
    if (current < 0) {
        say("{\"kind\":\"unavailable\",\"why\":" + quoted(why) + "}");
    } else {
        say("{\"kind\":\"failed\",\"line\":" + std::to_string(current) + ",\"why\":" + quoted(why) + "}");
    }
    std::exit(1);
}

void check(cudaError_t code, const char* what)
{
    if (code != cudaSuccess) fail(std::string(what) + ": " + cudaGetErrorString(code));
}

#define CHECK(call) check((call), #call)

struct Ends {
    int64_t segment, elements;
    __host__ __device__ int64_t operator()(int64_t i) const
    {
        const int64_t end = i * segment;
        return end < elements ? end : elements;
    }
};

// Memory, and how calls go round it.
class Arena {
public:
    explicit Arena(const Options& options) : options_(options)
    {
        CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
        CHECK(cudaMalloc(&memory_, options.arena));
        std::vector<uint32_t> pattern(kPattern / 4);
        uint32_t state = 1;
        for (auto& word : pattern) {
            state = state * 1664525u + 1013904223u;
            word = 0x3f803f80u | (state >> 9 & 0x007f007fu);
        }
        CHECK(cudaMemcpy(memory_, pattern.data(), kPattern, cudaMemcpyHostToDevice));
        for (size_t at = kPattern; at < options.arena; at += kPattern) {
            CHECK(cudaMemcpy(memory_ + at, memory_, std::min(kPattern, options.arena - at), cudaMemcpyDeviceToDevice));
        }
        CHECK(cub::DeviceReduce::Sum(nullptr, before_bytes_, first(), static_cast<float*>(nullptr),
                                     static_cast<int64_t>(options.before / 4), stream_));
        CHECK(cudaMalloc(&before_scratch_, before_bytes_));
        CHECK(cudaMalloc(&before_sum_, sizeof(float)));
    }

    cudaStream_t stream() const { return stream_; }
    const float* first() const { return reinterpret_cast<const float*>(memory_); }

    // Milliseconds of each call.
    std::vector<float> time(size_t bytes, const std::function<void(const float*)>& call)
    {
        cudaEvent_t start, end;
        CHECK(cudaEventCreate(&start));
        CHECK(cudaEventCreate(&end));
        std::vector<float> milliseconds;
        const auto begun = std::chrono::steady_clock::now();
        for (int calls = 0; milliseconds.size() < static_cast<size_t>(options_.repetitions); ++calls) {
            const bool counts = calls >= kWarmUp && std::chrono::steady_clock::now() - begun >= kAwake;
            const auto* before = reinterpret_cast<const float*>(memory_ + part(options_.before));
            CHECK(cub::DeviceReduce::Sum(before_scratch_, before_bytes_, before, before_sum_,
                                         static_cast<int64_t>(options_.before / 4), stream_));
            const auto* x = reinterpret_cast<const float*>(memory_ + part(bytes));
            CHECK(cudaEventRecord(start, stream_));
            call(x);
            CHECK(cudaEventRecord(end, stream_));
            CHECK(cudaEventSynchronize(end));
            float ms;
            CHECK(cudaEventElapsedTime(&ms, start, end));
            if (counts) milliseconds.push_back(ms);
        }
        CHECK(cudaEventDestroy(start));
        CHECK(cudaEventDestroy(end));
        return milliseconds;
    }

private:
    size_t part(size_t bytes)
    {
        if (cursor_ + bytes > options_.arena) cursor_ = 0;
        const size_t at = cursor_;
        cursor_ += (bytes + kStep - 1) / kStep * kStep;
        return at;
    }

    const Options& options_;
    cudaStream_t stream_{};
    uint8_t* memory_{};
    void* before_scratch_{};
    size_t before_bytes_{}, cursor_{};
    float* before_sum_{};
};

// One of CUB's calls: with scratch memory of null it says how much of it it wants.
using Call = std::function<cudaError_t(void*, size_t&, const float*, float*)>;

template <class Begins>
Call segments(const Line& line, Begins begins, cudaStream_t stream)
{
    const int64_t count = line.results();
    if (line.sum) {
        return [=](void* scratch, size_t& bytes, const float* x, float* out) {
            return cub::DeviceSegmentedReduce::Sum(scratch, bytes, x, out, count, begins, begins + 1, stream);
        };
    }
    return [=](void* scratch, size_t& bytes, const float* x, float* out) {
        return cub::DeviceSegmentedReduce::Max(scratch, bytes, x, out, count, begins, begins + 1, stream);
    };
}

Call call_of(const Line& line, const int64_t* cuts, cudaStream_t stream)
{
    if (line.shape == "segments") {
        const auto ends = Ends{line.segment, line.elements};
        return segments(line, thrust::make_transform_iterator(thrust::make_counting_iterator<int64_t>(0), ends), stream);
    }
    if (line.shape == "offsets") return segments(line, cuts, stream);
    const int64_t n = line.elements;
    if (line.sum) {
        return [=](void* scratch, size_t& bytes, const float* x, float* out) {
            return cub::DeviceReduce::Sum(scratch, bytes, x, out, n, stream);
        };
    }
    return [=](void* scratch, size_t& bytes, const float* x, float* out) {
        return cub::DeviceReduce::Max(scratch, bytes, x, out, n, stream);
    };
}

void run(Arena& arena, const Options& options, const Line& line)
{
    current = line.number;
    int64_t* cuts = nullptr;
    if (!line.cuts.empty()) {
        CHECK(cudaMalloc(&cuts, line.cuts.size() * sizeof(int64_t)));
        CHECK(cudaMemcpy(cuts, line.cuts.data(), line.cuts.size() * sizeof(int64_t), cudaMemcpyHostToDevice));
    }
    const Call call = call_of(line, cuts, arena.stream());
    const size_t results = static_cast<size_t>(line.results());
    void* scratch = nullptr;
    float* out = nullptr;
    size_t bytes = 0;
    CHECK(cudaMalloc(&out, results * sizeof(float)));
    CHECK(call(nullptr, bytes, arena.first(), out));
    CHECK(cudaMalloc(&scratch, std::max<size_t>(bytes, 1)));
    const std::string number = std::to_string(line.number);
    if (!options.check.empty()) {
        // Numbers that no result is, so that one that is left out shows.
        CHECK(cudaMemset(out, 0xff, results * sizeof(float)));
        CHECK(call(scratch, bytes, arena.first(), out));
        CHECK(cudaStreamSynchronize(arena.stream()));
        std::vector<float> found(results);
        CHECK(cudaMemcpy(found.data(), out, results * sizeof(float), cudaMemcpyDeviceToHost));
        std::ofstream file(options.check + "/" + number + ".f32", std::ios::binary);
        file.write(reinterpret_cast<const char*>(found.data()), static_cast<std::streamsize>(results * sizeof(float)));
        if (!file.flush()) fail("the results cannot be written into " + options.check);
        say("{\"kind\":\"computed\",\"line\":" + number + "}");
    } else {
        const auto times = arena.time(static_cast<size_t>(line.elements) * sizeof(float), [&](const float* x) {
            CHECK(call(scratch, bytes, x, out));
        });
        std::ostringstream all;
        all.precision(std::numeric_limits<float>::max_digits10);
        for (size_t i = 0; i < times.size(); ++i) all << (i == 0 ? "" : ",") << times[i];
        say("{\"kind\":\"timed\",\"line\":" + number + ",\"milliseconds\":[" + all.str() + "]}");
    }
    CHECK(cudaFree(scratch));
    CHECK(cudaFree(out));
    CHECK(cudaFree(cuts));
    current = -1;
}

Line parse(const std::string& text)
{
    std::vector<std::string> words;
    std::istringstream stream(text);
    for (std::string word; words.size() < 4 && std::getline(stream, word, ':');) words.push_back(word);
    std::string last;
    std::getline(stream, last);
    if (words.size() != 4 || (words[1] != "sum" && words[1] != "max")) fail("no line: " + text);
    Line line{std::atoi(words[0].c_str()), words[1] == "sum", words[2], std::atoll(words[3].c_str()), 0, {}};
    if (line.shape == "segments") {
        line.segment = std::atoll(last.c_str());
        if (line.segment < 1) fail("no line: " + text);
    } else if (line.shape == "offsets") {
        std::ifstream file(last, std::ios::binary);
        for (int64_t cut; file.read(reinterpret_cast<char*>(&cut), sizeof cut);) line.cuts.push_back(cut);
        if (line.cuts.size() < 2 || line.cuts.back() != line.elements) fail("no offsets of that many elements in " + last);
    } else if (line.shape != "flat") {
        fail("no line: " + text);
    }
    return line;
}

Options parse(int count, char** words)
{
    Options options;
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        if (word.rfind("--", 0) != 0) {
            options.lines.push_back(parse(word));
            continue;
        }
        if (++i == count) fail(word + " has no value");
        const std::string value = words[i];
        if (word == "--device") {
            options.device = std::atoi(value.c_str());
        } else if (word == "--repetitions") {
            options.repetitions = std::atoi(value.c_str());
        } else if (word == "--arena") {
            options.arena = std::strtoull(value.c_str(), nullptr, 10);
        } else if (word == "--before") {
            options.before = std::strtoull(value.c_str(), nullptr, 10);
        } else if (word == "--check") {
            options.check = value;
        } else {
            fail("no option " + word);
        }
    }
    if (options.arena < kPattern || options.before < 4 || options.repetitions < 1) {
        fail("--arena must be 32 MiB at least, --before 4 bytes, --repetitions 1");
    }
    return options;
}

}  // namespace

int main(int count, char** words)
{
    const Options options = parse(count, words);
    CHECK(cudaSetDevice(options.device));
    cudaDeviceProp device{};
    CHECK(cudaGetDeviceProperties(&device, options.device));
    say("{\"kind\":\"found\",\"device\":" + quoted(device.name) + ",\"cub\":\"" + std::to_string(CUB_MAJOR_VERSION) + "." +
        std::to_string(CUB_MINOR_VERSION) + "." + std::to_string(CUB_SUBMINOR_VERSION) + "\",\"toolkit\":\"" +
        std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10) + "\"}");
    Arena arena(options);
    for (const Line& line : options.lines) run(arena, options, line);
    say("{\"kind\":\"done\"}");
    return 0;
}
