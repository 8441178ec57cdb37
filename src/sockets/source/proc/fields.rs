//! The fields of one line of /proc, taken from its front.

/// What is left of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

/// The value of each byte as a hexadecimal digit; a bit above the low four for none.
const DIGITS: [u8; 256] = {
    let mut digits = [0xf0; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789ABCDEF"[value as usize];
        digits[digit as usize] = value;
        digits[digit.to_ascii_lowercase() as usize] = value;
        value += 1;
    }
    digits
};

impl<'a> Fields<'a> {
    /// Those of a line.
    pub(super) fn of(line: &'a [u8]) -> Self {
        Self { rest: line }
    }

    /// What no field was taken of.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Takes what stands before the next blank; None at the end of the line.
    #[inline]
    pub(super) fn word(&mut self) -> Option<&'a [u8]> {
        self.skip_blanks();
        let len = self.rest.iter().position(|&byte| is_blank(byte));
        let (word, rest) = self.rest.split_at(len.unwrap_or(self.rest.len()));
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Takes a decimal number.
    #[inline]
    pub(super) fn decimal(&mut self) -> Option<u64> {
        self.skip_blanks();
        let mut value = 0_u64;
        let mut len = 0;
        while let Some(digit) = self.rest.get(len).map(|byte| byte.wrapping_sub(b'0'))
            && digit < 10
        {
            value = value.checked_mul(10)?.checked_add(digit.into())?;
            len += 1;
        }
        self.rest = self.rest.get(len..)?;
        (len > 0 && self.at_end_of_field()).then_some(value)
    }

    /// Takes a decimal number that the kernel wrote as signed; one below 0 is what it
    /// stands for in 32 bits.
    pub(super) fn signed(&mut self) -> Option<u64> {
        self.skip_blanks();
        let Some(rest) = self.rest.strip_prefix(b"-") else { return self.decimal() };
        self.rest = rest;
        let below = u32::try_from(self.decimal()?).ok()?;
        Some(below.wrapping_neg().into())
    }

    /// Takes a hexadecimal number of exactly `N` digits, which must fit into 32 bits.
    #[inline]
    pub(super) fn hex<const N: usize>(&mut self) -> Option<u32> {
        let value = self.hex_part::<N>()?;
        self.at_end_of_field().then_some(value)
    }

    /// Takes two hexadecimal numbers of `N` and `M` digits with a colon between them.
    #[inline]
    pub(super) fn hex_pair<const N: usize, const M: usize>(
        &mut self,
    ) -> Option<(u32, u32)> {
        let first = self.hex_part::<N>()?;
        self.colon()?;
        let second = self.digits::<M>()?;
        self.at_end_of_field().then_some((first, second))
    }

    /// Takes `N` digits without a look at what follows.
    #[inline]
    pub(super) fn hex_part<const N: usize>(&mut self) -> Option<u32> {
        self.skip_blanks();
        self.digits::<N>()
    }

    #[inline]
    pub(super) fn digits<const N: usize>(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_first_chunk::<N>()?;
        let (mut value, mut all) = (0_u32, 0);
        for &digit in digits {
            let digit = DIGITS[usize::from(digit)];
            all |= digit;
            value = value << 4 | u32::from(digit & 0xf);
        }
        self.rest = rest;
        (all < 0x10).then_some(value)
    }

    /// Takes a hexadecimal number of any length up to 16 digits.
    #[inline]
    pub(super) fn long_hex(&mut self) -> Option<u64> {
        self.skip_blanks();
        let mut value = 0_u64;
        let mut len = 0;
        while let Some(&byte) = self.rest.get(len)
            && let digit @ 0..16 = DIGITS[usize::from(byte)]
        {
            value = value << 4 | u64::from(digit);
            len += 1;
        }
        self.rest = self.rest.get(len..)?;
        ((1..=16).contains(&len) && self.at_end_of_field()).then_some(value)
    }

    /// Takes a colon.
    #[inline]
    pub(super) fn colon(&mut self) -> Option<()> {
        self.rest = self.rest.strip_prefix(b":")?;
        Some(())
    }

    /// Takes the address of a kernel object: 0 where the kernel hides it, or says
    /// something else instead.
    #[inline]
    pub(super) fn pointer(&mut self) -> u64 {
        self.skip_blanks();
        let before = *self;
        self.long_hex().unwrap_or_else(|| {
            *self = before;
            self.word();
            0
        })
    }

    #[inline]
    fn skip_blanks(&mut self) {
        while let Some((&byte, rest)) = self.rest.split_first()
            && is_blank(byte)
        {
            self.rest = rest;
        }
    }

    #[inline]
    pub(super) fn at_end_of_field(&self) -> bool {
        self.rest.first().is_none_or(|&byte| is_blank(byte))
    }
}

#[inline]
fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_taken_from_the_front() {
        let mut fields = Fields::of(b"  12:  0A 0000BEEF:0010 77 -1 00ffaa 0 (ptrval) x");
        assert_eq!(fields.word(), Some(&b"12:"[..]));
        assert_eq!(fields.hex::<2>(), Some(10));
        assert_eq!(fields.hex_pair::<8, 4>(), Some((0xbeef, 0x10)));
        assert_eq!((fields.signed(), fields.signed()), (Some(77), Some(0xffff_ffff)));
        assert_eq!((fields.pointer(), fields.pointer()), (0xffaa, 0));
        assert_eq!(fields.pointer(), 0, "a word that is no address");
        assert_eq!((fields.word(), fields.word()), (Some(&b"x"[..]), None));
    }

    #[test]
    fn a_number_that_goes_on_or_is_too_large_is_none() {
        assert_eq!(Fields::of(b"0AB").hex::<2>(), None);
        assert_eq!(Fields::of(b"0").hex::<2>(), None);
        assert_eq!(Fields::of(b"0G").hex::<2>(), None);
        assert_eq!(Fields::of(b"12x").decimal(), None);
        assert_eq!(Fields::of(b"").decimal(), None);
        assert_eq!(Fields::of(b"18446744073709551616").decimal(), None);
        assert_eq!(Fields::of(b"11111111111111111").long_hex(), None);
    }

    proptest! {
        #[test]
        fn numbers_read_back(word: u32, port: u16, long: u64) {
            let line = format!("{word:08X}:{port:04x} {long:X} {long} {long:x}");
            let mut fields = Fields::of(line.as_bytes());
            prop_assert_eq!(fields.hex_pair::<8, 4>(), Some((word, port.into())));
            prop_assert_eq!(fields.pointer(), long);
            prop_assert_eq!(fields.decimal(), Some(long));
            prop_assert_eq!(fields.long_hex(), Some(long));
        }

        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>) {
            let of = || Fields::of(&line);
            let _ = (of().word(), of().decimal(), of().signed(), of().pointer());
            let _ = (of().hex::<8>(), of().hex_pair::<2, 8>(), of().long_hex());
        }
    }
}
