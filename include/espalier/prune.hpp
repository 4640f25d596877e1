// SPDX-License-Identifier: Apache-2.0
// Everything in prune/.
#pragma once
