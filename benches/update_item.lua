-- The UpdateItem of GET /v2/cardNumber, as wrk sends it to the DynamoDB endpoint.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-amz-json-1.0"
wrk.headers["X-Amz-Target"] = "DynamoDB_20120810.UpdateItem"
wrk.headers["X-Amz-Date"] = "20261121T043000Z"
wrk.headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=ANY/20261121/us-east-1/dynamodb/aws4_request, "
  .. "SignedHeaders=host;x-amz-date;x-amz-target, "
  .. "Signature=0000000000000000000000000000000000000000000000000000000000000000"
wrk.body = [[{
  "TableName": "loyalty-codes",
  "Key": {"PK": {"S": "ORG#966#COUNTER#CARD_NUMBER"}, "SK": {"S": "COUNTER"}},
  "UpdateExpression": "ADD #next :one",
  "ConditionExpression": "#shape = :shape AND #next < :end",
  "ExpressionAttributeNames": {"#next": "next", "#shape": "shape"},
  "ExpressionAttributeValues": {
    ":one": {"N": "1"}, ":shape": {"S": "AUTO_INC/10///NONE"}, ":end": {"N": "10000000000"}
  },
  "ReturnValues": "UPDATED_NEW",
  "ReturnValuesOnConditionCheckFailure": "ALL_OLD"
}]]
