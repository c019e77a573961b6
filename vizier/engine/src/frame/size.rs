//! How long a chain of operators may be, told before anything walks it: parsed SQL is walked by recursion in many places
//! (cloned, hashed, dropped), and a chain `1 + 1 + 1 …` is as deep as it is long.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use host::error::Error;

use super::failure;

/// Operators in one text. A filter that somebody wrote has tens, a generated one hundreds; a level of recursion takes up to
/// 4 KiB of the 16 MiB that threads that plan have.
pub(super) const OPERATORS_MAX: usize = 2_000;

/// Refuses a text with more operators than that. A text that is no SQL is left to the parser, which says where.
pub(super) fn check(text: &str) -> Result<(), Error> {
    // Fewer bytes cannot hold so many.
    if text.len() < OPERATORS_MAX {
        return Ok(());
    }
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else { return Ok(()) };
    let operators = tokens.iter().filter(|token| operator(token)).count();
    if operators <= OPERATORS_MAX {
        return Ok(());
    }
    Err(failure::invalid(
        format!("the text has {operators} operators, at most {OPERATORS_MAX} are allowed"),
        Some("write `x in (…)` instead of many `x = … or x = …`, or join with rows of your own"),
    ))
}

fn operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::CASE
        ),
        Token::Whitespace(_)
        | Token::Comma
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Period
        | Token::RParen
        | Token::SemiColon
        | Token::EOF => false,
        // Everything else combines something: signs, brackets, casts, arrows.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_chains_are_refused_and_long_lists_are_not() {
        let chain = format!("{}1", "1+".repeat(30_000));
        let Err(Error::Invalid { message, hint, .. }) = check(&chain) else { panic!("30,000 operators pass") };
        assert!(message.contains("30000 operators") && hint.is_some_and(|hint| hint.contains("in (")), "{message}");
        assert!(check(&format!("x {}", "or x ".repeat(2_001))).is_err());
        assert!(check(&format!("x in ({}0)", "12345, ".repeat(5_000))).is_ok());
        assert!(check(&format!("x = '{}'", "+".repeat(50_000))).is_ok());
        assert!(check(&format!("{}1", "1+".repeat(1_999))).is_ok());
    }
}
