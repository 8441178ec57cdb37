mod stream;
pub(super) use stream::{Args, run};
