.DEFAULT_GOAL := help
.PHONY: help demo test chaos ci bench audit

help: ## say what there is (default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## build and show it at work, without settings or servers
	@command -v cargo >/dev/null || { echo "Vestnik is built with Rust: install it from https://rustup.rs, then run make demo again."; exit 1; }
	@command -v cc >/dev/null || { echo "Vestnik contains C code (SQLite, TLS): install a C compiler, on Debian and Ubuntu with 'apt-get install gcc libc6-dev', on macOS with 'xcode-select --install', then run make demo again."; exit 1; }
	@cargo run --quiet -- demo

test: ## run all tests, with PostgreSQL and RabbitMQ found or started for them
	@scripts/test-services.sh --amqp run cargo test

chaos: ## campaigns while worker, server, broker and database are killed at random, many times (VESTNIK_TEST_KILLS)
	@VESTNIK_TEST_KILLS=$${VESTNIK_TEST_KILLS:-30} scripts/test-services.sh --amqp run cargo test --test it -- path::chaos --nocapture

ci: ## all that must pass before a merge
	@.ci/run

bench: ## measure the ledger, direct sends, emails and campaigns, optimised
	cargo build --profile bench-fast
	cargo run --quiet --profile bench-fast -- bench ledger
	cargo run --quiet --profile bench-fast -- bench direct
	cargo run --quiet --profile bench-fast -- bench email
	cargo run --quiet --profile bench-fast -- bench campaign --recipients 20000,100000
	cargo run --quiet --profile bench-fast -- bench accept
	cargo run --quiet --profile bench-fast -- bench priority

audit: ## known vulnerabilities of the dependencies (needs cargo-deny and the network)
	cargo deny check advisories
