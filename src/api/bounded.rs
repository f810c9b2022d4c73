//! A service of which so many requests run at once, each for a limited time.
//!
//! Others wait, unread: HTTP/2's windows bound what they hold. A request that does not come to its
//! end, because its body never arrives or the disk hangs, gives its place back when its time is up.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

use crate::wire::error::AnswerError;

/// The service `S`, bounded.
#[derive(Clone, Debug)]
pub(super) struct Bounded<S> {
    inner: S,
    places: Arc<Semaphore>,
    time_max: Duration,
    /// The path of requests that bound themselves.
    unless: Option<&'static str>,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, in_flight_max: usize, time_max: Duration) -> Bounded<S> {
        Bounded { inner, places: Arc::new(Semaphore::new(in_flight_max)), time_max, unless: None }
    }

    /// Requests for `path` pass: they bound themselves.
    pub(super) fn unless(self, path: &'static str) -> Bounded<S> {
        Bounded { unless: Some(path), ..self }
    }
}

impl<S: NamedService> NamedService for Bounded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Bounded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The generated servers are always ready; a clone of one is, too.
        let mut inner = self.inner.clone();
        if self.unless.is_some_and(|path| path == request.uri().path()) {
            return Box::pin(async move { inner.call(request).await });
        }
        let places = Arc::clone(&self.places);
        let time_max = self.time_max;
        Box::pin(async move {
            let served = async {
                let _place = places.acquire().await.expect("it is never closed");
                inner.call(request).await
            };
            match tokio::time::timeout(time_max, served).await {
                Ok(response) => response,
                Err(_) => Ok(Status::from(AnswerError::TooSlow { time_max }).into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers at once, or never.
    #[derive(Clone)]
    struct Answers {
        ever: bool,
    }

    type Answer = Result<http::Response<Body>, Infallible>;

    impl Service<http::Request<Body>> for Answers {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Answer>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            if self.ever {
                Box::pin(std::future::ready(Ok(http::Response::default())))
            } else {
                Box::pin(std::future::pending())
            }
        }
    }

    fn bounded(ever: bool) -> Bounded<Answers> {
        Bounded::new(Answers { ever }, 1, Duration::from_millis(20))
    }

    async fn code(service: &mut Bounded<Answers>) -> Option<tonic::Code> {
        let response = service.call(http::Request::new(Body::empty())).await.unwrap();
        Status::from_header_map(response.headers()).map(|status| status.code())
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_gives_its_place_back() {
        let mut service = bounded(false);
        assert_eq!(code(&mut service).await, Some(tonic::Code::DeadlineExceeded));
        assert_eq!(service.places.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_path_that_bounds_itself_passes() {
        let mut service = bounded(true).unless("/long");
        let _place = Arc::clone(&service.places).acquire_owned().await.unwrap();
        let long = http::Request::builder().uri("/long").body(Body::empty()).unwrap();
        let response = service.call(long).await.unwrap();
        assert!(Status::from_header_map(response.headers()).is_none());
        assert_eq!(code(&mut service).await, Some(tonic::Code::DeadlineExceeded));
    }

    #[tokio::test]
    async fn beyond_the_bound_requests_wait() {
        let mut service = bounded(true);
        assert_eq!(code(&mut service).await, None);
        let place = Arc::clone(&service.places).acquire_owned().await.unwrap();
        assert_eq!(code(&mut service).await, Some(tonic::Code::DeadlineExceeded));
        drop(place);
        assert_eq!(code(&mut service).await, None);
    }
}
