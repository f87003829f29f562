//! What the tests share: databases of their own, waiting with a deadline, a line that can be cut.

pub(crate) mod eventually;
pub(crate) mod postgres;
pub(crate) mod proxy;
