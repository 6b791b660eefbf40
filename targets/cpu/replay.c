/* A call of a model whose shapes are known: its kernels one after another, their arguments ready.

   The virtual machine makes tensors, looks functions up and counts references for every kernel of
   every call. A plan, which compiler/replay.py records from one call of it, has all that done. */
#include <stdint.h>

#include <tvm/ffi/c_api.h>

typedef struct {
  TVMFFIObjectHandle kernel;
  int64_t first, count; /* of its arguments */
} Step;

/* Tensors in an input or output of the call: [tensor] lies `offset` bytes into [slot]. */
typedef struct {
  int64_t tensor, slot, offset;
} Place;

typedef struct {
  const Step *steps;
  int64_t step_count;
  const Place *places;
  int64_t place_count;
  TVMFFIAny *arguments;
  DLTensor *tensors;
} Plan;

static char *data_of(const TVMFFIAny *value) {
  const DLTensor *tensor = value->v_ptr;
  if (value->type_index == kTVMFFITensor)
    tensor = (const DLTensor *)((const char *)value->v_ptr + sizeof(TVMFFIObject));
  return (char *)tensor->data + tensor->byte_offset;
}

/* replay(address of a plan, inputs..., outputs...), tensors of the plan's shapes */
__attribute__((visibility("default"))) int __tvm_ffi_burnish_replay(void *self,
                                                                    const TVMFFIAny *values,
                                                                    int32_t count,
                                                                    TVMFFIAny *result) {
  (void)self;
  (void)count;
  (void)result;
  const Plan *plan = (const Plan *)(intptr_t)values[0].v_int64;
  const TVMFFIAny *slots = values + 1;
  for (int64_t i = 0; i < plan->place_count; i++) {
    const Place *place = &plan->places[i];
    plan->tensors[place->tensor].data = data_of(&slots[place->slot]) + place->offset;
  }
  for (int64_t i = 0; i < plan->step_count; i++) {
    const Step *step = &plan->steps[i];
    TVMFFIAny nothing = {.type_index = kTVMFFINone};
    int code = TVMFFIFunctionCall(step->kernel, plan->arguments + step->first,
                                  (int32_t)step->count, &nothing);
    if (code != 0) return code;
  }
  return 0;
}
