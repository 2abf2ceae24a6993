#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| s3credmount::parsers::host_header(bytes));
