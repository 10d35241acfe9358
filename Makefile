# "make" lists the targets.
GO ?= go
FUZZTIME ?= 10s
SOAK ?= 10m
REPLAY ?= ../shared/replay
SAMPLE ?= ../shared/import

TAG    := $(shell git describe --tags --exact-match 2>/dev/null)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null)
# Of the commit, so that the same source gives the same binary.
DATE   := $(shell TZ=UTC git log -1 --date=iso-strict-local --format=%cd 2>/dev/null)
BUILD  := barong/internal/obs
LDFLAGS := -s -w $(if $(TAG),-X $(BUILD).tag=$(TAG)) $(if $(COMMIT),-X $(BUILD).commit=$(COMMIT)) \
           $(if $(DATE),-X $(BUILD).date=$(DATE))

# The race detector needs a C compiler; without one the tests run plain. It watches everything but what has no goroutines and
# works much: the C of SQLite, which is made into Go and took two thirds of the processor time of tests that use it, and the
# cipher of bcrypt, which took ten times as long.
UNWATCHED := modernc.org/sqlite/lib modernc.org/libc golang.org/x/crypto/blowfish
RACE := $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race $(UNWATCHED:%=-gcflags=%=-race=false))
# lint has run go vet, and nobody looks at test binaries with a debugger.
TEST := -vet=off -ldflags=-w
# Many tests wait for servers of their own, beside a dozen others, and a machine that stands still for some seconds can fail one.
# So what failed is run once more by itself, and has to pass then; a data race, or more than a few failures, is final. The
# summary at the end names what failed at first: it is a defect all the same.
ONCE_MORE := bin/gotestsum --format standard-quiet --rerun-fails=1 --rerun-fails-max-failures=4 --rerun-fails-run-root-test \
             --rerun-fails-abort-on-data-race
# Packages that start the whole program, several times over: beside others they would starve on a small machine.
ALONE := ./cmd/... ./envoy/... ./internal/test/...
# Tools with goroutines. The others import half of Kubernetes and of Prometheus, which lint has built, and which the race
# detector would have built a second time.
RACING := ./bench ./bigdata
# Packages with tests that count allocations, which the race detector would falsify. The names of those tests say Allocat…
ALLOC = $(shell grep -rl --include='*_test.go' '^//go:build !race' authz envoy session policy api internal db 2>/dev/null \
          | xargs -r -n1 dirname | sort -u | sed 's|^|./|')

# What the project is checked with, in the versions of tools/go.mod: the service's own module has only what it needs.
LINTERS := bin/gofumpt bin/staticcheck
bin/gotestsum: PACKAGE := gotest.tools/gotestsum
bin/gofumpt: PACKAGE := mvdan.cc/gofumpt
bin/staticcheck: PACKAGE := honnef.co/go/tools/cmd/staticcheck
$(LINTERS) bin/gotestsum: tools/go.mod
	$(GO) -C tools build -o ../$@ $(PACKAGE)

.PHONY: help build web run test race replay recordings sample drill soak tokens fuzz bench lint docs verify tools vuln release image clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/barong, static.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/barong ./cmd/barong

web: tools ## Build the pages anew: web/dist from web/src.
	$(GO) -C tools run ./web

run: build tools ## Start the gateway with a real Envoy in front, and print what to try.
	$(GO) build -o bin/demo ./envoy/demo
	bin/demo

# Three packages at a time: most of them wait for servers, and two left a third of two processors idle.
test: tools lint bin/gotestsum ## Everything: lint, and every test, with the race detector where there is a C compiler.
	$(ONCE_MORE) --packages "$$($(GO) list ./... | grep -vxF "$$($(GO) list $(ALONE))" | xargs)" -- $(RACE) $(TEST) -p 3 -timeout 20m
	$(ONCE_MORE) --packages '$(ALONE)' -- $(RACE) $(TEST) -p 1 -timeout 20m
	$(GO) -C tools test $(RACE) $(TEST) -p 1 -timeout 20m $(RACING)
	$(GO) -C tools test $(TEST) -timeout 20m $$($(GO) -C tools list ./... | grep -vxF "$$($(GO) -C tools list $(RACING))")
ifneq ($(RACE),)
	$(if $(ALLOC),$(GO) test $(TEST) -run Allocat -timeout 10m $(ALLOC))
endif

race: tools ## Every test, with the race detector.
	$(GO) test $(or $(RACE),-race) -timeout 20m ./...
	$(GO) -C tools test $(or $(RACE),-race) -timeout 20m ./...

# The recordings are no part of this repository: replay.py, its data/ and its harness/ are handed over beside it.
replay: recordings build tools ## The recorded answers of the original, on both kinds of stores. REPLAY names the folder with replay.py.
	BARONG_BIN=bin/barong .tools/bin/python $(REPLAY)/replay.py
	STORE=full PG_BIN=$$(dirname $$(readlink -f .tools/servers/postgres)) REDIS_BIN=.tools/servers/valkey-server \
	  BARONG_BIN=bin/barong .tools/bin/python $(REPLAY)/replay.py

recordings:
	@for need in replay.py data harness; do \
	  [ -e '$(REPLAY)'/$$need ] || { \
	    echo "make replay: $(REPLAY) has no $$need. It needs the folder of the recordings, which is no part of this repository:" \
	      "make replay REPLAY=/path/to/it" >&2; exit 2; }; \
	done

# The sample and the facts about it are handed over beside the recordings.
sample: tools ## The import of the handed over sample: every form of a dump and a running server, on both databases. SAMPLE names its folder.
	SAMPLE='$(abspath $(SAMPLE))' $(GO) test -tags sample ./internal/importer -run '^TestSample$$' -count 1 -timeout 30m

drill: tools ## Break every part in turn, under load, and print what came of it as a table.
	$(GO) test ./internal/test/systemtest -run '^TestDrills$$' -drill -v -count 1 -timeout 40m

soak: tools ## A mixed load for SOAK (10m), and what two replicas used meanwhile as a table.
	$(GO) test ./internal/test/systemtest -run '^TestSoak$$' -soak $(SOAK) -v -count 1 -timeout 0

tokens: tools ## The samples of docs/tokens.md in every language. Needs a JDK, Maven, Cargo and the network.
	$(GO) test ./internal/test/systemtest -run '^TestTokenSamples$$' -compilers -v -count 1 -timeout 20m

fuzz: tools ## Every fuzz target, each for FUZZTIME (10s).
	GO='$(GO)' FUZZTIME=$(FUZZTIME) .ci/fuzz

bench: build ## The check path beside a bare server, as ratios.
	$(GO) -C tools run ./bench

lint: $(LINTERS) ## Formatting, go vet and staticcheck.
	@unformatted=$$(bin/gofumpt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "make lint: not formatted (bin/gofumpt -w):"; echo "$$unformatted"; exit 1; fi
	for module in . tools; do (cd $$module && $(GO) vet ./... && $(CURDIR)/bin/staticcheck ./...) || exit 1; done

docs: ## Write the generated pages anew.
	$(GO) run ./internal/config/reference docs
	$(GO) -C tools run ./chart

verify: docs ## Fail when a generated page is stale.
	git diff --exit-code docs deploy/helm

tools: ## Bring the servers of the tests into .tools/.
	.ci/tools
	.ci/schemas

vuln: ## Known vulnerabilities of what is built in. Needs the network.
	$(GO) -C tools build -o ../bin/ golang.org/x/vuln/cmd/govulncheck
	bin/govulncheck ./...

release: ## Write dist/: programs, packages, contents and checksums of this commit.
	$(GO) -C tools run ./release

image: ## Build the container image.
	docker build --build-arg TAG=$(TAG) --build-arg COMMIT=$(COMMIT) --build-arg DATE=$(DATE) -t barong .

clean: ## Remove what was built.
	rm -rf bin dist
