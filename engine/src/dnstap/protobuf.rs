//! The four kinds of fields of the dnstap schema, in the wire format of Protocol Buffers.

const VARINT: u32 = 0;
const LENGTH_DELIMITED: u32 = 2;
const FIXED_32: u32 = 5;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number or the value of an enumeration.
pub fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field << 3 | VARINT));
    put_varint(out, value);
}

pub fn put_fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    put_varint(out, u64::from(field << 3 | FIXED_32));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Bytes, a text, or an encoded message.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field << 3 | LENGTH_DELIMITED));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the encoding guide (protobuf.dev/programming-guides/encoding).
    #[test]
    fn fields_are_those_of_the_encoding_guide() {
        let mut out = Vec::new();
        put_number(&mut out, 1, 150);
        put_bytes(&mut out, 2, b"testing");
        put_fixed32(&mut out, 3, 1);
        assert_eq!(out, b"\x08\x96\x01\x12\x07testing\x1d\x01\0\0\0");
    }
}
