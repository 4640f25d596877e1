// SPDX-License-Identifier: Apache-2.0
// Everything in models/.
#pragma once
