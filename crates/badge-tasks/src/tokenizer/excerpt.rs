//! The part of a text that can matter, so that of a long one the rest is never tokenised.

/// Words more than tokens that are wanted: what the last ones become may depend on what follows.
const MARGIN: usize = 8;

/// Which end of a text is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    First,
    Last,
}

/// The part of a text that has its first or last `tokens` tokens; none where that is all of it, or
/// may be.
///
/// Every word becomes a token at least: what lies between white space and holds an ASCII letter or
/// digit, which no normaliser takes away. Of texts that are written without white space nothing is
/// known, and nothing is left out.
pub(super) fn excerpt(text: &str, tokens: usize, end: End) -> Option<&str> {
    let words = tokens + MARGIN;
    // A word and a space are two bytes at least.
    if text.len() < 2 * words {
        return None;
    }
    let is_word = |piece: &&str| piece.bytes().any(|byte| byte.is_ascii_alphanumeric());
    let pieces = text.split_ascii_whitespace();
    // Where a piece lies in the text of which it is a part.
    let start = |piece: &str| piece.as_ptr().addr() - text.as_ptr().addr();
    let part = match end {
        End::First => {
            let last = pieces.filter(is_word).nth(words - 1)?;
            &text[..start(last) + last.len()]
        }
        End::Last => {
            let first = pieces.rev().filter(is_word).nth(words - 1)?;
            &text[start(first)..]
        }
    };
    (part.len() < text.len()).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_has_enough_words_and_ends_with_one() {
        let text = "a, -- b1 ".repeat(50);
        let first = excerpt(&text, 10, End::First).unwrap();
        assert_eq!(first, &text[..9 * 9 - 1]);
        let last = excerpt(&text, 10, End::Last).unwrap();
        assert_eq!(last, &text[text.len() - 9 * 9..]);
        for part in [first, last] {
            let words = part.split(' ').filter(|piece| piece.contains(['a', 'b']));
            assert_eq!(words.count(), 10 + MARGIN);
        }
    }

    #[test]
    fn of_what_may_be_few_tokens_nothing_is_left_out() {
        let (space, signs) = (" ".repeat(9000), "- ".repeat(9000));
        let (letters, other) = ("a".repeat(9000), "文字 ".repeat(9000));
        for text in ["", "a b c", &space, &signs, &letters, &other] {
            for end in [End::First, End::Last] {
                assert_eq!(excerpt(text, 10, end), None);
            }
        }
    }
}
