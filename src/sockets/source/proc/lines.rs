//! The lines of a file of /proc, one at a time, from a buffer that is used again.

use std::io::{self, Read};

/// Reads lines. A line that is longer than the buffer is handed out as far as it fits,
/// and the rest of it is left out.
pub(super) struct Lines<'b, R> {
    from: R,
    buffer: &'b mut [u8],
    start: usize,
    end: usize,
    /// A read of fewer bytes than this was the last one.
    full_read: usize,
    at_end: bool,
    in_overlong: bool,
}

impl<'b, R: Read> Lines<'b, R> {
    /// Lines of `from`. After a read of fewer bytes than `full_read` it is not read
    /// again: a page that is not full has no more behind it ([`super::folder`]).
    pub(super) fn new(from: R, buffer: &'b mut [u8], full_read: usize) -> Self {
        Self {
            from,
            buffer,
            start: 0,
            end: 0,
            full_read,
            at_end: false,
            in_overlong: false,
        }
    }

    /// The next line, without its newline.
    ///
    /// # Errors
    /// What reading gives; what was read before it has been handed out.
    #[inline]
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(len) = memchr::memchr(b'\n', unread) {
                let line = self.start..self.start + len;
                self.start = line.end + 1;
                if std::mem::take(&mut self.in_overlong) {
                    continue;
                }
                return Ok(Some(&self.buffer[line]));
            }
            if self.at_end {
                return Ok(self.last());
            }
            if self.start == 0 && self.end == self.buffer.len() {
                self.start = self.end;
                if !std::mem::replace(&mut self.in_overlong, true) {
                    return Ok(Some(&*self.buffer));
                }
            }
            self.fill()?;
        }
    }

    /// What stands after the last newline.
    fn last(&mut self) -> Option<&[u8]> {
        let line = self.start..self.end;
        self.start = self.end;
        (!line.is_empty() && !self.in_overlong).then(|| &self.buffer[line])
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let space = self.buffer.len() - self.end;
        let n = loop {
            match self.from.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        self.end += n;
        self.at_end = n == 0 || n < self.full_read.min(space);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives its bytes in pieces of these lengths, in turn.
    struct Pieces<'a> {
        rest: &'a [u8],
        lengths: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let piece = *self.lengths.next().unwrap_or(&1);
            let n = piece.min(into.len()).min(self.rest.len());
            into[..n].copy_from_slice(&self.rest[..n]);
            self.rest = &self.rest[n..];
            Ok(n)
        }
    }

    fn lines_of(bytes: &[u8], lengths: &[usize], buffer: usize) -> Vec<Vec<u8>> {
        let from = Pieces { rest: bytes, lengths: lengths.iter().cycle() };
        let mut buffer = vec![0; buffer];
        let mut lines = Lines::new(from, &mut buffer, 0);
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push(line.to_vec());
        }
        assert_eq!(lines.next().unwrap(), None, "the end stays the end");
        all
    }

    #[test]
    fn a_line_beyond_the_buffer_is_cut_and_the_next_one_whole() {
        let lines = lines_of(b"ab\n0123456789abcdef\ncd\n", &[7], 8);
        assert_eq!(lines, [&b"ab"[..], b"01234567", b"cd"]);
        let lines = lines_of(b"0123456789abcdef", &[7], 8);
        assert_eq!(lines, [&b"01234567"[..]]);
    }

    #[test]
    fn nothing_is_read_after_a_read_that_was_not_full() {
        let pieces =
            Pieces { rest: b"one\ntwo\none\n", lengths: [8, 4, 4].iter().cycle() };
        let mut buffer = [0; 64];
        let mut lines = Lines::new(pieces, &mut buffer, 8);
        assert_eq!(lines.next().unwrap(), Some(&b"one"[..]));
        assert_eq!(lines.next().unwrap(), Some(&b"two"[..]));
        assert_eq!(lines.next().unwrap(), Some(&b"one"[..]), "8 bytes: full");
        assert_eq!(lines.next().unwrap(), None);
        let pieces = Pieces { rest: b"one\ntwo\none\n", lengths: [8, 4].iter().cycle() };
        let mut lines = Lines::new(pieces, &mut buffer, 9);
        assert_eq!(lines.next().unwrap(), Some(&b"one"[..]));
        assert_eq!(lines.next().unwrap(), Some(&b"two"[..]));
        assert_eq!(lines.next().unwrap(), None);
    }

    proptest! {
        #[test]
        fn however_it_is_read_the_lines_are_the_same(
            text in "[a-c\n]{0,80}",
            lengths in prop::collection::vec(1..20_usize, 1..6),
            buffer in 81..200_usize,
        ) {
            let expected: Vec<Vec<u8>> =
                text.lines().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines_of(text.as_bytes(), &lengths, buffer), expected);
        }

        #[test]
        fn a_buffer_of_any_size_will_do(
            text in "[a-c\n]{0,80}",
            lengths in prop::collection::vec(1..20_usize, 1..6),
            buffer in 1..20_usize,
        ) {
            let expected: Vec<Vec<u8>> = text
                .lines()
                .map(|line| line.as_bytes()[..line.len().min(buffer)].to_vec())
                .collect();
            prop_assert_eq!(lines_of(text.as_bytes(), &lengths, buffer), expected);
        }
    }
}
