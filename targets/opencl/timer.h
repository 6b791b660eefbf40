// Times by the device's own clock: a timer sums the duration of the commands that its thread gave
// the device between start and stop, without the host's part and without gaps.
#ifndef BURNISH_OPENCL_TIMER_H_
#define BURNISH_OPENCL_TIMER_H_

// timer.h includes tensor.h, which does not compile as the wheel ships it, and needs none of it.
#define TVM_RUNTIME_TENSOR_H_
#include <tvm/runtime/timer.h>
#undef TVM_RUNTIME_TENSOR_H_

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "waits.h"

namespace burnish::opencl {

class Timing {
 public:
  static constexpr size_t kMostEvents = 1024;

  explicit Timing(Device* device) : device(device) {}
  ~Timing() {
    for (cl_event event : events_) Release(event);
  }

  // Takes over one reference to the event.
  void Add(cl_event event) {
    events_.push_back(event);
    if (events_.size() >= kMostEvents) Drain();
  }

  // Waits for the commands; nanoseconds so far.
  int64_t Drain() {
    Api& api = Runtime::Get()->api;
    if (!events_.empty()) opencl::Settle(device, device->profiling);  // raises before any is taken
    std::vector<cl_event> events;
    events.swap(events_);
    cl_int code = CL_SUCCESS;
    for (cl_event event : events) {
      cl_ulong start = 0, end = 0;
      if (code == CL_SUCCESS) code = api.clWaitForEvents(1, &event);
      if (code == CL_SUCCESS) {
        code = api.clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof(start), &start,
                                           nullptr);
      }
      if (code == CL_SUCCESS) {
        code = api.clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof(end), &end,
                                           nullptr);
      }
      nanoseconds_ += static_cast<int64_t>(end - start);
      if (code == CL_SUCCESS) Runtime::Get()->counters.timed += 1;
      Release(event);
    }
    Check(code, "reading the time of a command");
    return nanoseconds_;
  }

  Device* const device;
  std::atomic<bool> running{true};

 private:
  static void Release(cl_event event) {
    if (!Runtime::Get()->leaving()) Runtime::Get()->api.clReleaseEvent(event);
    Runtime::Get()->counters.live_events -= 1;
  }

  std::vector<cl_event> events_;
  int64_t nanoseconds_ = 0;
};

// The timers that the calling thread has running.
inline std::vector<std::shared_ptr<Timing>>& Timings() {
  static thread_local std::vector<std::shared_ptr<Timing>> timings;
  if (!timings.empty()) {
    timings.erase(std::remove_if(timings.begin(), timings.end(),
                                 [](const auto& timing) { return !timing->running; }),
                  timings.end());
  }
  return timings;
}

inline bool Timed(const Device* device) {
  for (const auto& timing : Timings()) {
    if (timing->device == device) return true;
  }
  return false;
}

// One command: the queue it goes to, and where its event goes if it is timed.
class Command {
 public:
  explicit Command(Device* device) : Command(device, false) {}
  // For a read that the host waits for: what was given before is done first, within a limit.
  struct Read {};
  Command(Device* device, Read) : Command((SettleBefore(device, QueueOf(device)), device), true) {}
  Command(const Command&) = delete;
  ~Command() {
    if (counted_ && !given_) device_->asked -= 1;  // it did not get into the queue
  }
  static cl_command_queue QueueOf(Device* device) {
    return Timed(device) ? device->profiling : device->queue;
  }
  cl_command_queue queue() const { return timed_ ? device_->profiling : device_->queue; }
  cl_event* event() { return timed_ ? &event_ : nullptr; }
  // To be called when the command is in the queue.
  void Given() {
    if (event_ == nullptr) {
      Count();
      return;
    }
    Given(event_);
    Runtime::Get()->api.clReleaseEvent(event_);
    event_ = nullptr;
  }
  // The same for an event that stays the caller's.
  void Given(cl_event event) {
    Count();
    if (!timed_) return;
    for (const auto& timing : Timings()) {
      if (timing->device != device_) continue;
      Runtime::Get()->api.clRetainEvent(event);
      Runtime::Get()->counters.live_events += 1;
      timing->Add(event);
    }
  }

 private:
  Command(Device* device, bool waited)
      : device_(device), timed_(Timed(device)), counted_(!timed_ && !waited) {
    if (counted_) device_->asked += 1;
  }
  // After the command is in the queue: who counts it as settled has waited for it.
  void Count() {
    if (counted_ && !given_) device_->given += 1;
    given_ = true;
  }

  Device* device_;
  bool timed_, counted_, given_ = false;
  cl_event event_ = nullptr;
};

inline void Finish(Device* device) {
  Runtime::Get()->counters.waits += 1;
  SettleBefore(device, device->queue);
  if (Timed(device)) Settle(device, device->profiling);
}

// TVM's timer of an OpenCL device (`runtime.timer.opencl`).
class TimerNode : public tvm::runtime::TimerNode {
 public:
  explicit TimerNode(Device* device) : timing_(std::make_shared<Timing>(device)) {}
  ~TimerNode() override { timing_->running = false; }

  void Start() override {
    static std::mutex mutex;
    Device* device = timing_->device;
    Api& api = Runtime::Get()->api;
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (device->profiling == nullptr) {
        cl_int code = CL_SUCCESS;
        device->profiling = api.clCreateCommandQueue(device->context, device->handle,
                                                     CL_QUEUE_PROFILING_ENABLE, &code);
        Check(code, "creating a queue with profiling");
      }
    }
    Finish(device);  // what was given before the timer is done before what it times
    Timings().push_back(timing_);
  }

  void Stop() override {
    opencl::Settle(timing_->device, timing_->device->profiling);
    timing_->running = false;
  }

  int64_t SyncAndGetElapsedNanos() override { return timing_->Drain(); }

  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("burnish.OpenCLTimer", TimerNode, tvm::runtime::TimerNode);

 private:
  std::shared_ptr<Timing> timing_;
};

}  // namespace burnish::opencl

#endif  // BURNISH_OPENCL_TIMER_H_
