// All of it stands in halves.h.
#pragma once
#include "cuda_runtime.h"
#include "halves.h"
