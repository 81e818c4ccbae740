//! gRPC over this transport: a service made by hand, merged into a router, called through the client.

mod common;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use axum::{Router, routing::get as on_get};
use bytes::{Buf, BufMut, Bytes};
use cloister_transport::{Http2Client, Peer, ServeLimits};
use common::{Authority, text};
use futures::{StreamExt, future::BoxFuture, stream};
use http::uri::PathAndQuery;
use tonic::{
    Request, Response, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{NamedService, ServerStreamingService, UnaryService},
};

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Plain;
    type Decoder = Plain;

    fn encoder(&mut self) -> Plain {
        Plain
    }

    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// `/echo.Echo/Once` answers with its message, `/echo.Echo/Thrice` three times, `/echo.Echo/Never` with an error.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "echo.Echo";
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        // What TLS knows of the caller reaches gRPC handlers.
        let named = request
            .extensions()
            .get::<Peer>()
            .is_some_and(|peer| peer.certificate.is_some());
        ready(if named {
            Ok(Response::new(request.into_inner()))
        } else {
            Err(Status::unauthenticated("no certificate"))
        })
    }
}

impl ServerStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = stream::Iter<std::vec::IntoIter<Result<Bytes, Status>>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let messages = vec![Ok(request.into_inner()); 3];
        ready(Ok(Response::new(stream::iter(messages))))
    }
}

impl tower_service::Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Plain);
            Ok(match request.uri().path() {
                "/echo.Echo/Once" => grpc.unary(Echo, request).await,
                "/echo.Echo/Thrice" => grpc.server_streaming(Echo, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

async fn grpc(client: &Http2Client) -> tonic::client::Grpc<Http2Client> {
    let mut grpc = tonic::client::Grpc::new(client.clone());
    grpc.ready().await.unwrap();
    grpc
}

#[tokio::test]
async fn grpc_and_http_share_a_port_and_a_connection() {
    let authority = Authority::new();
    let app = tonic::service::Routes::new(Echo)
        .into_axum_router()
        .merge(Router::new().route("/healthz", on_get(|| async { "ok" })));
    let server = authority.serve(app, ServeLimits::default()).await;
    let client = server.client(&authority.client("client"));
    assert_eq!(text(&client, "/healthz").await, "ok");

    let message = Bytes::from_static(b"hello");
    let path = PathAndQuery::from_static;
    let once = grpc(&client)
        .await
        .unary(Request::new(message.clone()), path("/echo.Echo/Once"), Plain)
        .await
        .unwrap();
    assert_eq!(once.into_inner(), message);

    let thrice = grpc(&client)
        .await
        .server_streaming(Request::new(message.clone()), path("/echo.Echo/Thrice"), Plain)
        .await
        .unwrap();
    let messages = thrice.into_inner().map(Result::unwrap).collect::<Vec<_>>().await;
    assert_eq!(messages, vec![message.clone(); 3]);

    let status = grpc(&client)
        .await
        .unary(Request::new(message), path("/echo.Echo/Never"), Plain)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}
