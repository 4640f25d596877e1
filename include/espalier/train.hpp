// SPDX-License-Identifier: Apache-2.0
// Everything in train/.
#pragma once
