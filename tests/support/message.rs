//! Messages that show what happened to them: a number, and bytes that follow from the number and the length.

/// The bytes of message `number` at its length.
pub fn fill(number: u64, buffer: &mut [u8]) {
    for (at, byte) in buffer.iter_mut().enumerate() {
        *byte = (number as u8).wrapping_mul(31).wrapping_add(at as u8).wrapping_add((at >> 8) as u8);
    }
    buffer[..8].copy_from_slice(&number.to_le_bytes());
}

/// The number of a message that is whole.
pub fn number(message: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(message.get(..8)?.try_into().ok()?);
    let whole = message[8..]
        .iter()
        .zip(8usize..)
        .all(|(&byte, at)| byte == (number as u8).wrapping_mul(31).wrapping_add(at as u8).wrapping_add((at >> 8) as u8));
    whole.then_some(number)
}
