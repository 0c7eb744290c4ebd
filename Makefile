# Dwarf Star. `make help` lists the targets. GNU make 4 or newer; one file, not recursive: where a
# target calls make again, it builds the same tree in another folder or after installing packages.
# Variables worth setting: BUILD CC CFLAGS PREFIX DESTDIR STATIC=1 CUDA=0 WERROR=1 FUZZ_SECONDS TESTDATA;
# V=1 shows the commands.

BUILD      ?= build
CFLAGS     ?= -O2 -g
PREFIX     ?= /usr/local
DESTDIR    ?=
OBJCOPY    ?= objcopy
PKG_CONFIG ?= pkg-config
JOBS       ?= $(shell nproc 2>/dev/null || echo 2)
# Version of the library's binary interface: changes when a program must be rebuilt.
SOVERSION  := 0

# ---- what is there ------------------------------------------------------------------------------

# Lowest layer first. Headers are found by name alone: `make tidy` keeps names unique and checks
# who may include whom.
DIRS := src/base src/quant src/format src/text src/ops src/ops/ref src/backend src/backend/cpu \
        src/kv src/experts src/model src/run src/cluster src/offline src/measure

CC_ARCH := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
ISA_DIR_x86_64  := src/backend/cpu/x86
ISA_DIR_aarch64 := src/backend/cpu/arm
ISA_DIR_arm64   := src/backend/cpu/arm
DIRS    += $(ISA_DIR_$(CC_ARCH))

LIB_SRC := $(foreach d,$(DIRS),$(wildcard $(d)/*.c))
CMD_SRC := $(wildcard src/cmd/*.c)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o)
CMD_OBJ := $(CMD_SRC:%.c=$(BUILD)/%.o)

# NVIDIA GPUs, where an nvcc for C++20 and its library are found and unless CUDA=0: for the GPU of
# this machine or else a data centre's, and for all later ones through PTX. Only the program and the
# libraries for others have them; what cuda_none.c defines instead is the same to all other files.
# nvcc may be a script or a link: where it lives is what it says of itself.
ifndef NVCC
NVCC      := $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
endif
ifneq ($(CUDA),0)
NVCC_SAYS := $(if $(NVCC),$(subst ",,$(shell $(NVCC) -std=c++20 --dryrun -x cu -c /dev/null 2>&1)))
CUDA_HOME := $(realpath $(patsubst TOP=%,%,$(filter TOP=%,$(NVCC_SAYS))))
ifndef CUDA
CUDA      := $(if $(and $(CUDA_HOME),$(wildcard $(shell $(CC) -print-file-name=libcudart_static.a) \
                     $(patsubst -L%,%/libcudart_static.a,$(filter -L%,$(NVCC_SAYS))))),1,0)
endif
endif
CUDA_SRC  := $(wildcard src/backend/cuda/*.cu)
ifeq ($(CUDA),1)
ifeq ($(NVCC),)
$(error CUDA=1: nvcc is neither on the path nor in /usr/local/cuda/bin; NVCC= says where it is)
endif
CUDA_OBJ  := $(CUDA_SRC:%.cu=$(BUILD)/%.o)
CUDA_LIBS := $(filter -L%,$(NVCC_SAYS)) -lcudart_static -ldl -lrt
endif
# Files with and without are told apart by this one's time.
CUDA_IS   := $(BUILD)/.cuda-is-$(if $(CUDA_OBJ),on,off)
PUBLIC_OBJ = $(CUDA_OBJ) $(if $(CUDA_OBJ),$(filter-out %/cuda_none.o,$(LIB_OBJ)),$(LIB_OBJ))
DIRS      += src/backend/cuda
# The same files for the emulator that tests them.
EMULATED  := $(CUDA_SRC:%.cu=$(BUILD)/emulated/%.o) $(BUILD)/emulated/tests/cuda/emulator.o

TEST_SRC    := $(filter-out tests/cuda/%,$(sort $(wildcard tests/*/test_*.c)))
TEST_SCRIPT := $(sort $(wildcard tests/*/test_*.sh))
FUZZ_SRC    := $(sort $(wildcard tests/fuzz/fuzz_*.c))
TESTS       := $(TEST_SRC:%.c=$(BUILD)/%)
REPLAYS     := $(FUZZ_SRC:%.c=$(BUILD)/%)

# Libraries. The core's are required; a feature whose library is missing says so at run time.
have      = $(shell $(PKG_CONFIG) --exists $(1) 2>/dev/null && echo 1)
pkg       = $(shell $(PKG_CONFIG) $(1) 2>/dev/null)
CORE_PKGS  := jansson libpcre2-8
HAVE_EDIT  := $(call have,libedit)
HAVE_URING := $(call have,liburing)
LIB_PKGS   := $(CORE_PKGS) $(if $(HAVE_URING),liburing)

FEATURES   := $(if $(HAVE_EDIT),-DHAVE_EDIT) $(if $(HAVE_URING),-DHAVE_URING)
PKG_FLAGS  := $(call pkg,--cflags $(LIB_PKGS) $(if $(HAVE_EDIT),libedit))

# STATIC=1: the program depends on libc alone. Static libraries of others cannot go into a shared
# one, so there is none then.
SHARED := $(if $(filter 1,$(STATIC)),,1)
ifeq ($(STATIC),1)
linked     = -Wl,-Bstatic $(filter-out -lpthread -lm,$(call pkg,--static --libs $(1))) -Wl,-Bdynamic
else
linked     = $(call pkg,--libs $(1))
endif
LIBS      := $(call linked,$(LIB_PKGS)) -lm -lpthread
EDIT_LIBS := $(if $(HAVE_EDIT),$(call linked,libedit))

# ---- flags --------------------------------------------------------------------------------------

# No contraction: kernels say fma when they mean it, and every compiler gives the same numbers.
WARN       := -std=c11 -Wall -Wextra -Wpedantic $(if $(WERROR),-Werror)
INC        := -Iinclude $(addprefix -I,$(DIRS)) $(PKG_FLAGS)
ALL_CFLAGS  = $(WARN) $(CFLAGS) $(if $(ISA),$(ISA) $(ISA_SAN)) -fPIC -fvisibility=hidden \
              -ffp-contract=off $(FEATURES) -MMD -MP $(INC)

# One instruction set is one file with its own flags, reached only through a table.
$(BUILD)/src/backend/cpu/x86/%_avx2.o:    ISA := -mavx2 -mfma -mf16c
$(BUILD)/src/backend/cpu/x86/%_avx512.o:  ISA := -mavx2 -mfma -mf16c -mavx512f -mavx512bw \
                                                 -mavx512vl -mavx512dq -mavx512vnni
$(BUILD)/src/backend/cpu/x86/%_amx.o:     ISA := -mavx2 -mfma -mf16c -mavx512f -mavx512bw \
                                                 -mavx512vl -mavx512dq -mavx512vnni \
                                                 -mamx-tile -mamx-int8
ifeq ($(CC_ARCH),x86_64)
$(BUILD)/tests/ops/test_tiles:            ISA := -mavx2 -mfma -mf16c -mavx512f -mavx512bw \
                                                 -mavx512vl -mavx512dq -mavx512vnni \
                                                 -mamx-tile -mamx-int8
endif
$(BUILD)/src/backend/cpu/arm/%_dotprod.o: ISA := -march=armv8.2-a+dotprod
$(BUILD)/src/backend/cpu/arm/%_i8mm.o:    ISA := -march=armv8.2-a+dotprod+i8mm
# Vectors wider than the machine's, never passed to a function that is called.
$(BUILD)/src/quant/%_lanes.o:             ISA := -Wno-psabi

Q   := $(if $(V),,@)
SAY  = $(if $(V),,@printf '  %-5s %s\n' $(1) $@)

# ---- building -----------------------------------------------------------------------------------

MODEL     := $(BUILD)/pebble.gguf
PUBLIC    := $(BUILD)/libdwarfstar.a $(if $(SHARED),$(BUILD)/libdwarfstar.so)
EXAMPLES  := $(patsubst examples/%.c,$(BUILD)/%,$(wildcard examples/*.c))
PROGRAM   := $(if $(CMD_SRC),$(BUILD)/dstar)

all: build $(MODEL)  ## build the program, the library and the bundled model
build: $(BUILD)/libinternal.a $(PUBLIC) $(PROGRAM) $(EXAMPLES)

$(BUILD)/.packages: tools/setup
	@PKG_CONFIG='$(PKG_CONFIG)' CC='$(CC)' tools/setup --check build
	@mkdir -p $(@D) && touch $@

$(BUILD)/%.o: %.c Makefile | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call SAY,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(CUDA_IS):
	@mkdir -p $(@D)
	@rm -f $(BUILD)/.cuda-is-* && touch $@

# Else .SECONDARY would forgive that it is missing.
.PHONY: $(filter-out $(wildcard $(CUDA_IS)),$(CUDA_IS))

# The runtime is linked in and finds the driver when a GPU is opened: without one the program runs.
# The machine is asked once, and only where kernels are compiled.
CUDA_FOUND  = $(eval CUDA_FOUND := $(subst .,,$(firstword $(shell nvidia-smi \
                  --query-gpu=compute_cap --format=csv,noheader 2>/dev/null))))$(CUDA_FOUND)
CUDA_ARCH  ?= $(or $(CUDA_FOUND),90a)
CUDA_PTX   ?= 80
code        = -gencode=arch=compute_$(1)$(comma)code=$(2)_$(1)
comma      := ,
CUDA_CODE   = $(foreach a,$(CUDA_ARCH),$(call code,$a,sm)) \
              $(foreach a,$(CUDA_PTX),$(call code,$a,compute))
CUDA_INC   := $(addprefix -I,$(wildcard src/base src/quant src/ops src/backend src/backend/cuda))
# The host's compiler, when objects are for other hosts than this one: CUDA's headers suit all.
CUDA_HOST  ?=
CUDA_CROSS  = $(if $(CUDA_HOST),-ccbin $(CUDA_HOST) -target-dir $(notdir $(firstword $(wildcard \
                  $(CUDA_HOME)/targets/sbsa-linux $(CUDA_HOME)/targets/*))))
CUDA_FLAGS  = -std=c++20 -O3 -fmad=false $(CUDA_CODE) $(if $(WERROR),-Werror all-warnings) \
              -Xcompiler -fPIC,-fvisibility=hidden,-fno-exceptions,-fno-threadsafe-statics \
              -Xcompiler -Wall,-Wextra $(CUDA_INC) $(CUDA_CROSS)

$(CUDA_OBJ): $(BUILD)/%.o: %.cu Makefile | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call SAY,NVCC)
	$(Q)$(NVCC) $(CUDA_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@

# For our own program and tests: every symbol between files; of GPUs, that there are none.
$(BUILD)/libinternal.a: $(LIB_OBJ)
	@rm -f $@
	$(call SAY,AR)
	$(Q)$(AR) rcs $@ $^

# A library with sanitizers has names that only the program provides.
WHOLE := $(if $(findstring -fsanitize,$(LDFLAGS)),,-Wl,-z,defs)

# For others: one object in which only what dwarfstar.h exports is visible.
$(BUILD)/dwarfstar.o: $(PUBLIC_OBJ) $(CUDA_IS)
	$(Q)$(CC) -r -nostdlib $(PUBLIC_OBJ) -o $@
	$(Q)$(OBJCOPY) --localize-hidden $@

$(BUILD)/libdwarfstar.a: $(BUILD)/dwarfstar.o
	@rm -f $@
	$(call SAY,AR)
	$(Q)$(AR) rcs $@ $^

$(BUILD)/libdwarfstar.so: $(PUBLIC_OBJ) $(CUDA_IS)
	$(call SAY,LINK)
	$(Q)$(CC) $(LDFLAGS) -shared -Wl,-soname,$(SONAME) $(WHOLE) $(PUBLIC_OBJ) -o $@ $(LIBS) \
		$(CUDA_LIBS)

$(BUILD)/dstar: $(CMD_OBJ) $(CUDA_OBJ) $(BUILD)/libinternal.a $(CUDA_IS)
	$(call SAY,LINK)
	$(Q)$(CC) $(LDFLAGS) $(filter %.o %.a,$^) -o $@ $(LIBS) $(CUDA_LIBS) $(EDIT_LIBS)

# As any user of the library builds.
$(EXAMPLES): $(BUILD)/%: examples/%.c $(BUILD)/libdwarfstar.a
	$(call SAY,LINK)
	$(Q)$(CC) $(WARN) $(CFLAGS) -Iinclude $< $(LDFLAGS) $(BUILD)/libdwarfstar.a -o $@ $(LIBS) $(CUDA_LIBS)

# Derived again when the checkpoint or what derives it changes, not whenever the program is linked.
# The bundled model has two bits for its experts; tests compare with one in which nothing is lost.
OFFLINE := $(wildcard models/pebble/*) $(wildcard src/offline/*.c src/format/*.c)
$(BUILD)/pebble.gguf: $(OFFLINE) $(wildcard src/quant/*.c) models/pebble.recipe \
                      models/pebble.imatrix.gguf | $(BUILD)/dstar
	$(BUILD)/dstar quantize models/pebble --recipe models/pebble.recipe \
		--imatrix models/pebble.imatrix.gguf --restart --quiet -o $@

$(BUILD)/pebble-exact.gguf: $(OFFLINE) | $(BUILD)/dstar
	$(BUILD)/dstar import models/pebble -o $@

# ---- tests --------------------------------------------------------------------------------------

$(BUILD)/tests/%: tests/%.c $(BUILD)/libinternal.a
	@mkdir -p $(@D)
	$(call SAY,TEST)
	$(Q)$(CC) $(ALL_CFLAGS) -MF $@.d -MT $@ -Itests $< $(LDFLAGS) $(BUILD)/libinternal.a -o $@ \
		$(LIBS) -lcmocka

# Misaligned access is a fault on a GPU.
CXX        ?= g++
EMU_FLAGS  := -std=c++20 -O2 -g -Wall -Wextra -Wno-unknown-pragmas $(if $(WERROR),-Werror) \
              -ffp-contract=off -fsanitize=alignment -fno-sanitize-recover=all -MMD -MP \
              -Itests/cuda $(CUDA_INC)

$(BUILD)/emulated/%.o: %.cu Makefile
	@mkdir -p $(@D)
	$(call SAY,CXX)
	$(Q)$(CXX) $(EMU_FLAGS) -x c++ -c $< -o $@

$(BUILD)/emulated/%.o: %.cc Makefile
	@mkdir -p $(@D)
	$(call SAY,CXX)
	$(Q)$(CXX) $(EMU_FLAGS) -c $< -o $@

# The longest first.
CUDA_TESTS := $(patsubst %.c,$(BUILD)/%,tests/cuda/test_cuda_ops.c \
                $(filter-out %_ops.c,$(sort $(wildcard tests/cuda/test_*.c))))
$(CUDA_TESTS): $(BUILD)/tests/cuda/%: tests/cuda/%.c $(EMULATED) $(BUILD)/libinternal.a
	@mkdir -p $(@D)
	$(call SAY,TEST)
	$(Q)$(CC) $(ALL_CFLAGS) -MF $@.d -MT $@ -Itests -c $< -o $@.o
	$(Q)$(CXX) $(LDFLAGS) -fsanitize=alignment $@.o $(EMULATED) $(BUILD)/libinternal.a -o $@ \
		$(LIBS) -lcmocka

# On a GPU: the same programs with the true kernels, but for what asks the emulator for faults.
CARD_TESTS := $(patsubst test_cuda_%.c,$(BUILD)/tests/cuda/on_card_%,\
                         $(filter-out test_cuda_ops.c test_cuda_replay.c,\
                                      $(notdir $(wildcard tests/cuda/test_*.c))))

$(BUILD)/tests/cuda/on_card.o: tests/cuda/test_cuda_ops.c
$(CARD_TESTS:%=%.o): $(BUILD)/tests/cuda/on_card_%.o: tests/cuda/test_cuda_%.c
$(BUILD)/tests/cuda/on_card.o $(CARD_TESTS:%=%.o):
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -DCUDA_ON_CARD -Itests -c $< -o $@

CARD_TESTS += $(BUILD)/tests/cuda/on_card
$(CARD_TESTS): %: %.o $(CUDA_OBJ) $(BUILD)/libinternal.a
	$(call SAY,TEST)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(LIBS) $(CUDA_LIBS) -lcmocka

# The encoder that the proof compares with.
$(BUILD)/tools/proof/published: tools/proof/published.c $(BUILD)/libinternal.a
	@mkdir -p $(@D)
	$(call SAY,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) -MF $@.d -MT $@ -Itests $< $(LDFLAGS) $(BUILD)/libinternal.a -o $@ \
		$(LIBS)

# A fuzz target without a fuzzer: it is fed its corpus, and small changes of it.
$(BUILD)/tests/fuzz/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(BUILD)/libinternal.a
	@mkdir -p $(@D)
	$(call SAY,TEST)
	$(Q)$(CC) $(ALL_CFLAGS) -MF $@.d -MT $@ $< tests/fuzz/replay.c $(LDFLAGS) \
		$(BUILD)/libinternal.a -o $@ $(LIBS)

# make again, in parallel unless the caller said how
AGAIN = $(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))

export DSTAR_BUILD   := $(BUILD)
export DSTAR_TESTDATA = $(TESTDATA)

test:  ## install what is missing, build, check the folder law, run every test
	@tools/setup build edit uring test
	@$(AGAIN) check

test-programs: build $(TESTS) $(REPLAYS)

check: test-programs $(MODEL) $(BUILD)/pebble-exact.gguf
	@tests/run -j $(JOBS) tools/tidy $(TESTS) $(TEST_SCRIPT) $(REPLAYS)

tidy:  ## check the folder law, sizes, banned calls and names in documents
	@tools/tidy

test-emulated:  ## the CUDA kernels in an emulator, without a GPU
	@tools/setup build test cxx
	@$(AGAIN) check-emulated

check-emulated: $(CUDA_TESTS) $(MODEL)
	@tests/run -j $(JOBS) $(CUDA_TESTS)

test-cuda:  ## the ops and the bundled model on this machine's GPU; skipped where there is none
	@tools/setup build test
	@$(AGAIN) check-cuda CUDA=1 BUILD=$(BUILD)-cuda

check-cuda: $(CARD_TESTS) $(BUILD)/dstar $(MODEL)
	@tests/cuda/on_card.sh $(BUILD)

CUDA_ALL := 80 86 89 90a 100 120 121
CUDA_ARM := aarch64-linux-gnu-g++
cuda-all:  ## compile the CUDA kernels for every architecture we know, and one for an AArch64 host
	@$(AGAIN) cuda-objects CUDA=1 BUILD=$(BUILD)-cuda-all CUDA_ARCH='$(CUDA_ALL)' CUDA_PTX=
	@if command -v $(CUDA_ARM) >/dev/null; then \
		$(AGAIN) cuda-objects CUDA=1 BUILD=$(BUILD)-cuda-arm CUDA_ARCH=121 CUDA_PTX= \
			CUDA_HOST=$(CUDA_ARM); \
	else echo '$(CUDA_ARM) was not found: nothing was compiled for AArch64 hosts'; fi

cuda-objects: $(CUDA_OBJ)
	@test -n '$^' || printf 'nothing compiled: nvcc was not found\n0 passed, 0 failed, 1 skipped\n'

.PHONY: test-emulated check-emulated test-cuda check-cuda cuda-all cuda-objects

SAN := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
test-san:  ## the same tests under the address and undefined-behaviour sanitizers (build-san)
	@tools/setup build edit uring test
	@LSAN_OPTIONS=suppressions=$(CURDIR)/tests/leaks.txt:print_suppressions=0 \
		$(AGAIN) check BUILD=$(BUILD)-san CUDA=0 CFLAGS="-O2 -g $(SAN)" LDFLAGS="$(LDFLAGS) $(SAN)"

# Fuzzing needs clang. The committed corpus is only read; what is found goes to the build folder.
# No input steers the kernels of an instruction set, which take clang four minutes to instrument.
FUZZ_SECONDS ?= 60
FUZZERS      := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/%)
FUZZ_SAN     := -fsanitize=address,undefined -fno-sanitize-recover=all

fuzz:  ## run every fuzz target for FUZZ_SECONDS=60 (clang; build-fuzz)
	@tools/setup build clang
	@$(AGAIN) fuzz-all BUILD=$(BUILD)-fuzz CUDA=0 CC=clang CFLAGS="-O1 -g $(FUZZ_SAN) \
		-fsanitize=fuzzer-no-link" ISA_SAN=-fno-sanitize=all LDFLAGS="$(LDFLAGS) $(FUZZ_SAN)"

$(BUILD)/fuzz_%: tests/fuzz/fuzz_%.c $(BUILD)/libinternal.a
	$(call SAY,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) -MF $@.d -MT $@ -fsanitize=fuzzer $< $(LDFLAGS) \
		$(BUILD)/libinternal.a -o $@ $(LIBS)

fuzz-all: $(FUZZERS)
	@LIMIT_S=$$(($(FUZZ_SECONDS) + 120)) \
		tests/run -j $(JOBS) -w 'tests/fuzz/hunt $(FUZZ_SECONDS)' $(FUZZERS)

# AArch64 on any machine: a cross compiler, libraries unpacked beside the objects, an emulator.
# Only what needs neither the program nor a terminal.
ARM_SYSROOT = $(BUILD)-arm/sysroot
ARM_LIB     = $(ARM_SYSROOT)/usr/lib/aarch64-linux-gnu
test-arm:  ## unit, op and model tests for AArch64 under an emulator (build-arm)
	@tools/setup build test arm
	@tools/arm_sysroot $(ARM_SYSROOT)
	@PKG_CONFIG_LIBDIR=$(ARM_LIB)/pkgconfig $(AGAIN) check-arm BUILD=$(BUILD)-arm CUDA=0 \
		CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar \
		CFLAGS="$(CFLAGS) -isystem $(ARM_SYSROOT)/usr/include" \
		LDFLAGS="-L$(ARM_LIB) -Wl,-rpath,$(abspath $(ARM_LIB))"

# Long under emulation, or they need the program, measure a real process's memory or map a whole
# model, and they try little that depends on the processor; ARM_SLOW= runs them too.
ARM_SLOW  := test_divergence test_engine test_long test_pebble test_session test_stream test_fit \
             test_quantize test_quantize_feedback test_quantize_gain test_quantize_resume \
             test_quantize_upgrade test_quant_encode test_inspect test_calibrate test_squeeze \
             test_stream_faults test_synth_counted test_quant_feedback
ARM_TESTS := $(filter-out $(foreach d,model unit,$(addprefix $(BUILD)/tests/$d/,$(ARM_SLOW))), \
               $(filter $(foreach d,unit ops model,$(BUILD)/tests/$(d)/%),$(TESTS)))
QEMU      := qemu-aarch64 -cpu max,sve=off,pauth-impdef=on -L /usr/aarch64-linux-gnu
check-arm: $(ARM_TESTS)
	@tests/run -j $(JOBS) -w '$(QEMU)' $(ARM_TESTS)

# Instruction counts do not depend on what else the machine does. Only with the usual CFLAGS.
count:  ## compare the kernels' instruction counts with the accepted ones (ACCEPT=1 accepts)
	@tools/setup build count
	@$(MAKE) --no-print-directory $(BUILD)/tests/ops/count_kernels
	@tests/ops/count $(BUILD)/tests/ops/count_kernels '$(CC)' $(if $(ACCEPT),--accept)

.PHONY: all build count test test-programs check tidy test-san fuzz fuzz-all test-arm check-arm

# ---- installing ---------------------------------------------------------------------------------

VERSION := $(shell sed -n 's/^\#define DSTAR_VERSION "\(.*\)"/\1/p' include/dwarfstar.h 2>/dev/null)
SONAME  := libdwarfstar.so.$(SOVERSION)
TO      := $(DESTDIR)$(PREFIX)
FILES   := bin/dstar include/dwarfstar.h lib/libdwarfstar.a lib/libdwarfstar.so lib/$(SONAME) \
           lib/libdwarfstar.so.$(VERSION) lib/pkgconfig/dwarfstar.pc share/man/man1/dstar.1 \
           share/bash-completion/completions/dstar share/zsh/site-functions/_dstar \
           share/fish/vendor_completions.d/dstar.fish share/dwarfstar/pebble.gguf \
           share/doc/dwarfstar/LICENSE share/doc/dwarfstar/NOTICE

install: all  ## install under PREFIX=/usr/local, or a package's DESTDIR
	install -d $(sort $(dir $(addprefix $(TO)/,$(FILES))))
	install -m 755 $(BUILD)/dstar $(TO)/bin/dstar
	install -m 644 include/dwarfstar.h $(TO)/include/
	install -m 644 $(BUILD)/libdwarfstar.a $(TO)/lib/
ifdef SHARED
	install -m 755 $(BUILD)/libdwarfstar.so $(TO)/lib/libdwarfstar.so.$(VERSION)
	ln -sf libdwarfstar.so.$(VERSION) $(TO)/lib/$(SONAME)
	ln -sf $(SONAME) $(TO)/lib/libdwarfstar.so
endif
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' \
		-e 's|@PACKAGES@|$(LIB_PKGS)|; s|@PRIVATE@|$(strip -lm -lpthread $(CUDA_LIBS))|' tools/dwarfstar.pc.in \
		> $(TO)/lib/pkgconfig/dwarfstar.pc
	install -m 644 man/dstar.1 $(TO)/share/man/man1/
	install -m 644 completions/dstar.bash $(TO)/share/bash-completion/completions/dstar
	install -m 644 completions/_dstar $(TO)/share/zsh/site-functions/
	install -m 644 completions/dstar.fish $(TO)/share/fish/vendor_completions.d/
	install -m 644 $(BUILD)/pebble.gguf $(TO)/share/dwarfstar/
	install -m 644 LICENSE NOTICE $(TO)/share/doc/dwarfstar/

uninstall:  ## remove what install put there
	rm -f $(addprefix $(TO)/,$(FILES))
	-rmdir $(TO)/share/dwarfstar $(TO)/share/doc/dwarfstar

.PHONY: install uninstall

# ---- the rest -----------------------------------------------------------------------------------

demo:  ## install what is missing, build, and let the bundled model speak
	@tools/setup build edit uring
	@$(AGAIN) all
	$(BUILD)/dstar run "Write an encyclopedia of birds."

bench: all  ## measure the bundled model on this machine
	$(BUILD)/dstar bench -m $(BUILD)/pebble.gguf

# Sets whose dialogues are long get fewer of them; the numbers stand in the table. MODEL=file asks
# another model; the bundled file has no draft block, its checkpoint has.
HELDOUT := tools/train/heldout
DRAFTED := $(if $(filter file,$(origin MODEL)),models/pebble,$(MODEL))
EXAMINE  = $(BUILD)/dstar eval $(1) -m $(MODEL)
sets     = $(patsubst %,$(HELDOUT)/%.jsonl,$(1))
eval-pebble: all  ## what the bundled model can do, measured: skills, draft block, repetition
	$(call EXAMINE,skills) --set $(call sets,arithmetic words define)
	$(call EXAMINE,skills) --limit 100 --set $(call sets,memory tools recall-4 recall-16 recall-64)
	$(call EXAMINE,skills) --limit 10 --set $(call sets,recall-4096 recall-8000 encyclopedia)
	$(BUILD)/dstar eval draft -m $(DRAFTED) --limit 10 --set $(call sets,arithmetic words define memory tools \
		recall-64 encyclopedia)
	$(call EXAMINE,repeat)

# Minutes to an hour, by the machine. PROVE='--nth 4 --skills 0' is a quicker look.
proof: all $(BUILD)/tools/proof/published  ## what two-bit files lose, measured on the bundled model
	DSTAR_BUILD=$(BUILD) tools/proof/prove $(PROVE)

clean:  ## remove everything that was built
	rm -rf $(BUILD) $(BUILD)-san $(BUILD)-fuzz $(BUILD)-arm $(BUILD)-clang \
		$(BUILD)-cuda $(BUILD)-cuda-all $(BUILD)-cuda-arm

help:  ## list the targets
	@awk -F ':.*##' '/^[a-z-]+:.*##/ { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: demo bench eval-pebble proof clean help
.DEFAULT_GOAL := all
.SECONDARY:

-include $(LIB_OBJ:.o=.d) $(CUDA_OBJ:.o=.d) $(EMULATED:.o=.d) $(CMD_OBJ:.o=.d) $(TESTS:=.d) $(REPLAYS:=.d) \
         $(FUZZERS:=.d) $(CUDA_TESTS:=.d) $(CARD_TESTS:=.d)
