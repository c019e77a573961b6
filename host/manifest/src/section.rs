//! The custom section a manifest travels in. Component and core module binaries share this framing: id 0, length, name,
//! content, lengths in LEB128.

/// Name of the custom section.
pub const NAME: &str = "pyxis.manifest";

/// The component with `json` appended as its manifest.
pub fn append(component: &[u8], json: &str) -> Vec<u8> {
    let mut content = leb128(NAME.len());
    content.extend_from_slice(NAME.as_bytes());
    content.extend_from_slice(json.as_bytes());
    let mut out = Vec::with_capacity(component.len() + content.len() + 6);
    out.extend_from_slice(component);
    out.push(0);
    out.extend_from_slice(&leb128(content.len()));
    out.extend_from_slice(&content);
    out
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}
