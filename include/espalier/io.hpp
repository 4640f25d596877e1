// SPDX-License-Identifier: Apache-2.0
// Everything in io/.
#pragma once
#ifdef __CUDACC__
#error "espalier/io.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/io/adapter.hpp>
#include <espalier/io/adapter_config.hpp>
#include <espalier/io/append_log.hpp>
#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/checkpoint_files.hpp>
#include <espalier/io/checkpoint_writer.hpp>
#include <espalier/io/companions.hpp>
#include <espalier/io/csv.hpp>
#include <espalier/io/descriptor.hpp>
#include <espalier/io/file.hpp>
#include <espalier/io/fingerprint.hpp>
#include <espalier/io/json.hpp>
#include <espalier/io/json_document.hpp>
#include <espalier/io/json_dump.hpp>
#include <espalier/io/json_value.hpp>
#include <espalier/io/jsonl.hpp>
#include <espalier/io/mapped_file.hpp>
#include <espalier/io/module_pattern.hpp>
#include <espalier/io/normal_weights.hpp>
#include <espalier/io/output_lock.hpp>
#include <espalier/io/regex.hpp>
#include <espalier/io/safetensors.hpp>
#include <espalier/io/safetensors_writer.hpp>
#include <espalier/io/sha256.hpp>
#include <espalier/io/shard_spec.hpp>
#include <espalier/io/temporary.hpp>
#include <espalier/io/tensor_spec.hpp>
