//! Fuzzes path normalisation: a normalised path does not change if it is normalised again, and contains nothing that
//! two readers could interpret differently.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::policy::path::normalise;

fuzz_target!(|raw: &str| {
    for merge in [false, true] {
        let Ok(normal) = normalise(raw, merge) else { continue };
        let text = normal.as_str();
        assert!(text.starts_with('/') && !text.contains("//"), "{text:?}");
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'?' && byte != b'\\'));
        let lower = text.to_ascii_lowercase();
        for segment in lower.split('/') {
            let name = segment.split(';').next().unwrap().replace("%2e", ".");
            assert!(name != "." && name != "..", "{text:?}");
        }
        assert!(normal.has_encoded_slash() || !lower.contains("%2f"), "{text:?}");
        assert_eq!(normalise(text, merge).expect("a normal form is normal").as_str(), text);
    }
});
