// SPDX-License-Identifier: Apache-2.0
// Everything in io/.
#pragma once
