// SPDX-License-Identifier: Apache-2.0
// The few algorithms that headers below hub/ need. They replace <algorithm>, whose range algorithms
// take a tenth of the umbrella's compile time; min, max, copy, fill_n and equal come with <vector>.
#pragma once

#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

namespace espalier::algo {

template <class T, class N>
void copy_n(const T* from, N count, T* to) {
  std::copy(from, from + count, to);
}

template <class T>
constexpr T clamp(T x, T low, T high) {
  return x < low ? low : high < x ? high : x;
}

/// Index of the first of the smallest elements, of the first of the largest.
template <class T>
std::size_t min_index(const std::vector<T>& v) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < v.size(); ++i) best = v[i] < v[best] ? i : best;
  return best;
}
template <class T>
std::size_t max_index(const std::vector<T>& v) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < v.size(); ++i) best = v[best] < v[i] ? i : best;
  return best;
}

/// 0, 1, 2, ...
template <class T>
void count_up(std::vector<T>& v) {
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<T>(i);
}

/// Merge sort: equal elements keep their order. n log n comparisons, a copy of v as memory.
template <class T, class Less>
void stable_sort(std::vector<T>& v, Less less) {
  std::vector<T> merged(v.size());
  for (std::size_t width = 1; width < v.size(); width *= 2) {
    for (std::size_t begin = 0; begin < v.size(); begin += 2 * width) {
      const std::size_t middle = std::min(begin + width, v.size());
      const std::size_t end = std::min(middle + width, v.size());
      std::size_t a = begin, b = middle;
      for (std::size_t to = begin; to < end; ++to) {
        const bool second = a == middle || (b < end && less(v[b], v[a]));
        merged[to] = std::move(v[second ? b++ : a++]);
      }
    }
    std::swap(v, merged);
  }
}

/// Pushes onto a heap whose front is the largest by `less`.
template <class T, class Less>
void push_heap(std::vector<T>& heap, T value, Less less) {
  heap.push_back(std::move(value));
  for (std::size_t i = heap.size() - 1; i > 0;) {
    const std::size_t parent = (i - 1) / 2;
    if (!less(heap[parent], heap[i])) break;
    std::swap(heap[parent], heap[i]);
    i = parent;
  }
}
/// Pops the largest element.
template <class T, class Less>
T pop_heap(std::vector<T>& heap, Less less) {
  T top = std::move(heap.front());
  T last = std::move(heap.back());
  heap.pop_back();
  if (heap.empty()) return top;
  std::size_t i = 0;
  for (std::size_t child = 1; child < heap.size(); child = 2 * i + 1) {
    if (child + 1 < heap.size() && less(heap[child], heap[child + 1])) ++child;
    if (!less(last, heap[child])) break;
    heap[i] = std::move(heap[child]);
    i = child;
  }
  heap[i] = std::move(last);
  return top;
}

}  // namespace espalier::algo
