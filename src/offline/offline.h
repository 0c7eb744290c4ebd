/* offline.h - making and looking at model files: all that commands need of this folder. */
#ifndef DS_OFFLINE_H
#define DS_OFFLINE_H

#include "import.h"
#include "inspect.h"
#include "quantize.h"
#include "recipe.h"
#include "synth.h"

#endif
