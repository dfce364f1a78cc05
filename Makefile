# Parley. `make run` serves on this machine; `make test` is what CI runs.

# go.mod says which Go is needed; an older one fetches it.
export GOTOOLCHAIN := auto
SHELL := /bin/bash

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 10s
BENCHTIME ?= 1s
SOAK ?= 10m

.PHONY: build
build:
	go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/parley ./cmd/parley

.PHONY: run
run: build
	scripts/run.sh

# Everything that must be right: it installs what it needs, so that nothing is
# skipped because it is missing. Several packages are tested at a time, since much of it is
# waiting for other programs, and packages are fetched while the linters run.
.PHONY: test
test:
	$(MAKE) --jobs=2 --output-sync=target deps lint
	go test -race -p 4 -timeout 40m ./...

.PHONY: deps
deps:
	scripts/install-test-deps.sh

# The whole of interop, against every client and peer; writes docs/interop.md.
.PHONY: interop
interop: deps
	go run ./interop/cmd/interop

# The part of interop that is with a Dendrite, which is nobody's but whoever brings it:
# DENDRITE is the path of the program. Puts what it finds into docs/interop.md.
.PHONY: interop-dendrite
interop-dendrite: deps
	@test -f "$(DENDRITE)" -a -x "$(DENDRITE)" || { \
	echo "interop-dendrite: nothing was run: DENDRITE must be the path of a Dendrite server's program, and is \"$(DENDRITE)\"" >&2; exit 1; }
	go run ./interop/cmd/interop -dendrite "$(DENDRITE)"

# A short run of every fuzz target that there is.
.PHONY: fuzz
fuzz:
	scripts/fuzz.sh $(FUZZTIME)

# Parley beside ejabberd and Prosody, under one load; writes docs/benchmarks.md.
.PHONY: bench
bench: deps
	go build -o bin/bench ./bench/cmd/bench
	bin/bench -o docs/benchmarks.md

# Parley as one Matrix server among others, beside the Dendrite of which DENDRITE is the path;
# without one alone. Writes its part of docs/federation.md.
.PHONY: bench-federation
bench-federation: deps
	go build -o bin/federation ./bench/cmd/federation
	bin/federation -o docs/federation.md $(if $(DENDRITE),-dendrite "$(DENDRITE)")

# Large Matrix rooms in a simulation; writes its part of docs/federation.md.
.PHONY: size
size:
	go run ./bench/cmd/size -o docs/federation.md

# The benchmarks of single packages.
.PHONY: microbench
microbench:
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

# Durability under load for a long time: kill -9 and lost page caches.
.PHONY: soak
soak: deps
	PARLEY_SOAK=$(SOAK) go test -count=1 -timeout 0 -run 'Soak|Durab|Kill|Crash|Power' -v ./...

.PHONY: lint
lint:
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted (run gofmt -w):"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...

.PHONY: docs
docs:
	go run ./internal/specdoc

.PHONY: clean
clean:
	rm -rf bin
