// Waiting for a device, for no longer than a limit: a driver that hangs must not hang the process.
#ifndef BURNISH_OPENCL_WAITS_H_
#define BURNISH_OPENCL_WAITS_H_

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "device.h"

namespace burnish::opencl {

// Seconds that a device may take for all that it was given: $BURNISH_OPENCL_LIMIT_S, else 600.
inline double LimitSeconds() {
  static const double limit = [] {
    const char* said = std::getenv("BURNISH_OPENCL_LIMIT_S");
    const double found = said == nullptr ? 0 : std::atof(said);
    return found > 0 ? found : 600.0;
  }();
  return limit;
}

// Whether an event has come. Its driver may call back after the waiting was given up.
struct Awaited {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;

  static void Done(cl_event, cl_int, void* given) {
    std::unique_ptr<std::shared_ptr<Awaited>> held(static_cast<std::shared_ptr<Awaited>*>(given));
    std::lock_guard<std::mutex> lock((*held)->mutex);
    (*held)->done = true;
    (*held)->changed.notify_all();
  }
};

// CL_COMPLETE, what the command failed by, or a positive number if it has not ended.
inline cl_int StatusOf(cl_event event) {
  cl_int status = CL_COMPLETE;
  const cl_int code = Runtime::Get()->api.clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS,
                                                         sizeof(status), &status, nullptr);
  return code == CL_SUCCESS ? status : code;
}

// Waits for an event of a queue that was flushed; its status, positive if the time has run out.
inline cl_int Await(cl_event event) {
  cl_int status = StatusOf(event);
  if (status <= CL_COMPLETE) return status;
  auto awaited = std::make_shared<Awaited>();
  auto held = std::make_unique<std::shared_ptr<Awaited>>(awaited);
  const cl_int code = Runtime::Get()->api.clSetEventCallback(event, CL_COMPLETE, &Awaited::Done,
                                                             held.get());
  if (code == CL_SUCCESS) held.release();
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::duration<double>(LimitSeconds());
  // Not every driver calls back (none does where there was an error): it is asked too, seldom.
  std::chrono::duration<double> slice(code == CL_SUCCESS ? 0.01 : 0.0002);
  while ((status = StatusOf(event)) > CL_COMPLETE && Clock::now() < until) {
    std::unique_lock<std::mutex> lock(awaited->mutex);
    awaited->changed.wait_for(lock, slice, [&] { return awaited->done; });
    // Between the call and the status there may be a moment: then it is asked at once, but slowly.
    awaited->done = false;
    slice = std::min<std::chrono::duration<double>>(2 * slice, std::chrono::duration<double>(0.5));
  }
  return status;
}

[[noreturn]] inline void Hangs(const Device* device) {
  TVM_FFI_THROW(RuntimeError)
      << "OpenCL: " << device->Label() << " has not answered for " << LimitSeconds()
      << " s ($BURNISH_OPENCL_LIMIT_S): its driver hangs. Start the process again, with more "
      << "seconds if what it computes takes as long";
  TVM_FFI_UNREACHABLE();
}

// Waits until a queue has done all that it was given. Raises what a command failed by, and after
// the limit that the device does not answer.
inline void Settle(Device* device, cl_command_queue queue) {
  Api& api = Runtime::Get()->api;
  if (device->hangs) Hangs(device);
  cl_event event = nullptr;
  Check(api.clEnqueueMarkerWithWaitList(queue, 0, nullptr, &event), "clEnqueueMarkerWithWaitList");
  cl_int status = api.clFlush(queue);
  if (status == CL_SUCCESS) status = Await(event);
  api.clReleaseEvent(event);
  if (status > CL_COMPLETE) {
    device->hangs = true;
    Hangs(device);
  }
  Check(status, "waiting for the device");
}

// The same before a command that the host will wait for, where the queue may be busy.
inline void SettleBefore(Device* device, cl_command_queue queue) {
  if (device->hangs) Hangs(device);
  if (queue != device->queue) return Settle(device, queue);
  const int64_t given = device->given;
  if (device->settled >= device->asked) return;
  Settle(device, queue);
  device->Settled(given);
}

}  // namespace burnish::opencl

#endif  // BURNISH_OPENCL_WAITS_H_
