// SPDX-License-Identifier: Apache-2.0
// AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2) in torch's order of operations:
//   p *= 1 - lr·wd    m += (g - m)(1 - β1)    v = β2 v + (1 - β2) g²
//   p -= lr / (1 - β1ᵗ) · m / (sqrt(v) / sqrt(1 - β2ᵗ) + eps)
// Elementwise in f32, constants in double. A parameter without a gradient in a step has gradient
// zero: its moments and its weight decay, as in torch with zeroed gradients.
#pragma once

#include <string>
#include <vector>

#include <espalier/core/math.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/nn/parameter.hpp>
#include <espalier/ops/adamw_step.hpp>

namespace espalier::optim {

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

class AdamW {
 public:
  /// @throws DTypeError when a parameter is not f32.
  ESP_ON_DEMAND AdamW(std::vector<NamedParameter> parameters, AdamWConfig config)
      : parameters_(std::move(parameters)), config_(config) {
    for (const NamedParameter& p : parameters_) {
      ESP_REQUIRE(p.var.any().dtype() == DType::f32, DTypeError, "adamw: parameter ", p.name,
                  " is ", espalier::name(p.var.any().dtype()), ", expected f32");
      const AnyTensor zeros = Tensor<float>(p.var.shape(), 0.0f);
      const Memory& memory = p.var.any().memory();  // moments are on the parameter's device
      moments_.push_back({zeros.clone().on(memory), zeros.on(memory)});
    }
  }

  /// One update. Multiplies every gradient by `grad_scale` (the clipping coefficient) first.
  ESP_ON_DEMAND void step(double lr, double grad_scale = 1.0) {
    ++steps_;
    const double t = static_cast<double>(steps_);
    const AdamWStep c = {
        static_cast<float>(1.0 - lr * config_.weight_decay),
        static_cast<float>(1.0 - config_.beta1),
        static_cast<float>(config_.beta2),
        static_cast<float>(1.0 - config_.beta2),
        static_cast<float>(math::sqrt(1.0 - math::pow(config_.beta2, t))),
        static_cast<float>(config_.eps),
        static_cast<float>(lr / (1.0 - math::pow(config_.beta1, t))),
        static_cast<float>(grad_scale),
    };
    const trace::Scope scope("adamw");
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      // A frozen parameter stays as it is: no decay, no momentum.
      if (parameters_[i].var.requires_grad()) update(parameters_[i], moments_[i], c);
    }
  }

  void zero_grad() const {
    for (const NamedParameter& p : parameters_) p.var.zero_grad();
  }

  std::int64_t steps() const { return steps_; }
  const std::vector<NamedParameter>& parameters() const { return parameters_; }

  /// The moments by name: "<parameter>.exp_avg" and "<parameter>.exp_avg_sq", in parameter order.
  ESP_ON_DEMAND [[nodiscard]] std::vector<std::pair<std::string, AnyTensor>> state() const {
    std::vector<std::pair<std::string, AnyTensor>> out;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      out.emplace_back(parameters_[i].name + ".exp_avg", moments_[i].m.on_host());
      out.emplace_back(parameters_[i].name + ".exp_avg_sq", moments_[i].v.on_host());
    }
    return out;
  }

  /// Restores a `state()` after `steps` updates. `Map` is std::map or std::unordered_map from names
  /// to AnyTensor.
  /// @throws FormatError when a moment is missing, unknown, or of another shape or type.
  template <class Map>
  void restore(std::int64_t steps, const Map& state) {
    ESP_REQUIRE(state.size() == 2 * parameters_.size(), FormatError, "adamw: state has ",
                state.size(), " tensors, expected ", 2 * parameters_.size());
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      copy_moment(state, parameters_[i].name + ".exp_avg", moments_[i].m);
      copy_moment(state, parameters_[i].name + ".exp_avg_sq", moments_[i].v);
    }
    steps_ = steps;
  }

 private:
  struct Moments {
    AnyTensor m, v;
  };

  static float* floats(const AnyTensor& t) { return reinterpret_cast<float*>(t.bytes()); }

  ESP_ON_DEMAND static void update(const NamedParameter& parameter, const Moments& moments,
                                   const AdamWStep& c) {
    const AnyTensor value = parameter.var.any();
    float *p = floats(value), *m = floats(moments.m), *v = floats(moments.v);
    const AnyTensor grad = parameter.var.grad();
    ESP_REQUIRE(!grad || grad.shape() == parameter.var.shape(), ShapeError, "adamw: gradient of ",
                parameter.name, " is ", grad.shape(), ", expected ", parameter.var.shape());
    ESP_REQUIRE(!grad || (grad.dtype() == DType::f32 && &grad.memory() == &value.memory()),
                DTypeError, "adamw: gradient of ", parameter.name, " is ",
                espalier::name(grad.dtype()), " on ", grad.memory().device, ", expected f32 on ",
                value.memory().device);
    const float* g = grad ? floats(grad) : nullptr;
    trace::count(0, 7.0 * static_cast<double>(moments.m.size_bytes()));  // p, m, v twice, g once
    if (!value.memory().on_host) {
      value.memory().adamw(p, m, v, g, value.numel(), c);
      return;
    }
    parallel_for(moments.m.numel(), 1 << 14, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const float gi = g ? g[i] * c.scale : 0.0f;
        m[i] += c.one_minus_beta1 * (gi - m[i]);
        v[i] = v[i] * c.beta2 + c.one_minus_beta2 * gi * gi;
        p[i] =
            p[i] * c.keep - c.step_size * (m[i] / (math::sqrt(v[i]) / c.root_correction2 + c.eps));
      }
    });
  }

  template <class Map>
  static void copy_moment(const Map& state, const std::string& name, const AnyTensor& to) {
    const auto found = state.find(name);
    ESP_REQUIRE(found != state.end(), FormatError, "adamw: state lacks ", name);
    const AnyTensor& from = found->second;
    ESP_REQUIRE(from.shape() == to.shape() && from.dtype() == DType::f32, FormatError,
                "adamw: state ", name, " is ", espalier::name(from.dtype()), from.shape(),
                ", expected f32", to.shape());
    to.memory().upload(to.bytes(), from.bytes(), to.size_bytes());
  }

  std::vector<NamedParameter> parameters_;
  std::vector<Moments> moments_;
  AdamWConfig config_;
  std::int64_t steps_ = 0;
};

}  // namespace espalier::optim
