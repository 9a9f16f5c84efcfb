//! Whether what is secret can be read.

/// What every text begins with, to be looked for on the network.
pub(super) const CANARY: &[u8] = b"canary-in-the-coal-mine-";
/// Of so many parcels, one is searched for the canary in every form that it can have.
pub(super) const OVERHEARD_WHOLE: u64 = 16;

/// The canary as it looks inside entries and heads: in base64, and in base64 twice, at every alignment.
pub(super) fn needles() -> Vec<Vec<u8>> {
    let mut needles = Vec::new();
    for once in in_base64(CANARY) {
        needles.extend(in_base64(&once));
        needles.push(once);
    }
    needles
}

/// What stands in any base64 text that has `bytes` in it, for the three places at which they may begin.
fn in_base64(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..3).map(|before: usize| {
        let padded = [vec![0; before], bytes.to_vec()].concat();
        let whole = padded.len() / 3 * 3;
        let text = data_encoding::BASE64.encode(padded.get(..whole).unwrap_or_default());
        text.as_bytes().get(if before == 0 { 0 } else { 4 }..).unwrap_or_default().to_vec()
    })
}

pub(super) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(needle) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}
