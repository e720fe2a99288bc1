// Steps of compiled code and of Adam, one after another, without Python between them.
//
// `native_steps.py` compiles this file and calls `pyrovae_steps`. It stands on the stable C interface of torch alone, so
// it takes a second to compile.

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_aten.h>
#include <torch/csrc/stable/c/shim.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <vector>

extern "C" void* PyErr_Occurred(void);  // the headers of Python are not needed for more

namespace {

using Entry = void (*)(AtenTensorHandle*, AtenTensorHandle*);

enum Kind : char { SAME, ROWS, NUMBER };

void check(AOTITorchError code) {
  if (code != AOTI_TORCH_SUCCESS) {
    throw std::runtime_error("torch has said why");  // on the standard error stream
  }
}

template <typename T>
StableIValue packed(T value) {
  StableIValue found = 0;
  std::memcpy(&found, &value, sizeof(T));
  return found;
}

AtenTensorHandle another(AtenTensorHandle tensor) {
  AtenTensorHandle found;
  check(aoti_torch_new_tensor_handle(tensor, &found));
  return found;
}

// A list of tensors, which the operation that takes it lets go of.
StableIValue list_of(AtenTensorHandle* tensors, const int64_t* places, int64_t count) {
  StableListHandle found;
  check(torch_new_list_reserve_size(count, &found));
  for (int64_t i = 0; i < count; ++i) {
    check(torch_list_push_back(found, packed(another(tensors[places == nullptr ? i : places[i]]))));
  }
  return packed(found);
}

// Tensors that are let go of at the end, but for those that somebody took and put nothing in their place.
struct Handles {
  std::vector<AtenTensorHandle> handles;
  explicit Handles(int64_t count) : handles(count, nullptr) {}
  ~Handles() {
    for (auto handle : handles) {
      if (handle != nullptr) {
        aoti_torch_delete_tensor_object(handle);
      }
    }
  }
};

// What one call of Adam moves. `native_steps.py` has the same fields in the same order.
struct Move {
  int64_t number;
  const int64_t* places;     // of gradients among the outputs of the code, in the order of the parameters
  AtenTensorHandle* parameters;
  AtenTensorHandle* means;
  AtenTensorHandle* squares;
  AtenTensorHandle* counts;
  float* count;              // the memory of `counts`
  double lr, beta1, beta2, weight_decay, eps;
  char maximize, decoupled;
};

void moved(const Move& move, AtenTensorHandle* outputs) {
  for (int64_t i = 0; i < move.number; ++i) {
    move.count[i] += 1.0f;
  }
  StableIValue stack[] = {
      list_of(move.parameters, nullptr, move.number),
      list_of(outputs, move.places, move.number),
      list_of(move.means, nullptr, move.number),
      list_of(move.squares, nullptr, move.number),
      list_of(nullptr, nullptr, 0),
      list_of(move.counts, nullptr, move.number),
      packed(move.lr),
      packed(move.beta1),
      packed(move.beta2),
      packed(move.weight_decay),
      packed(move.eps),
      packed(false),
      packed(move.maximize != 0),
      0,
      0};
  const char* name = move.decoupled ? "aten::_fused_adamw_" : "aten::_fused_adam_";
  check(torch_call_dispatcher(name, "", stack, TORCH_ABI_VERSION));
}

double loss_of(AtenTensorHandle tensor, bool is_double) {
  double found = 0.0;
  float single = 0.0f;
  check(is_double ? aoti_torch_item_float64(tensor, &found) : aoti_torch_item_float32(tensor, &single));
  return is_double ? found : static_cast<double>(single);
}

}  // namespace

// Do so many steps; the first batch begins at row `first`. `done` counts the steps done. There are fewer than asked for
// where a loss is not finite: it stands behind the losses of the steps done, and nothing was moved by it. There are also
// fewer after an error, which `problem` then tells, or Python if it has happened there; the result is then false.
extern "C" char pyrovae_steps(
    void* entry,
    int64_t num_inputs,
    AtenTensorHandle* inputs,
    const char* kinds,    // of each of them: the same in all steps, rows of all batches, or a number for each step
    int64_t first,
    int64_t batch,
    int64_t steps,
    int64_t num_outputs,  // the loss, and the gradients
    char is_double,       // the loss
    int64_t num_moves,
    const Move* moves,
    double* losses,
    int64_t* done,
    char* problem,
    int64_t room) {
  try {
    for (int64_t step = 0; step < steps; ++step) {
      Handles taken(num_inputs), found(num_outputs);
      for (int64_t i = 0; i < num_inputs; ++i) {
        if (kinds[i] == ROWS) {
          check(aoti_torch_aten_narrow(inputs[i], 0, first + step * batch, batch, &taken.handles[i]));
        } else if (kinds[i] == NUMBER) {
          check(aoti_torch__reinterpret_tensor(inputs[i], 0, nullptr, nullptr, step, &taken.handles[i]));
        } else {
          taken.handles[i] = another(inputs[i]);
        }
      }
      reinterpret_cast<Entry>(entry)(taken.handles.data(), found.handles.data());
      if (PyErr_Occurred() != nullptr) {
        return false;
      }
      losses[step] = loss_of(found.handles[0], is_double);
      if (!std::isfinite(losses[step])) {
        return true;
      }
      for (int64_t i = 0; i < num_moves; ++i) {
        moved(moves[i], found.handles.data());
      }
      ++*done;
    }
    return true;
  } catch (const std::exception& error) {
    std::snprintf(problem, room, "%s", error.what());
  } catch (...) {
    std::snprintf(problem, room, "an error without a text");
  }
  return false;
}
