"""TensorFlow's operators that may run in a SavedModel.

They compute, or hold variables, tables and functions. All others (files, Python code, the network,
and what does not exist yet) need `--trust`.
"""

_NAMES = """
Abs Acos Acosh Add AddN AddV2 AdjustContrastv2 AdjustHue AdjustSaturation All Any ArgMax ArgMin Asin
Asinh Assert Assign AssignAddVariableOp AssignSubVariableOp AssignVariableOp Atan Atan2 Atanh
AvgPool AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BiasAdd BiasAddV1 Bincount
BitwiseAnd BitwiseOr BitwiseXor BroadcastArgs BroadcastGradientArgs BroadcastTo Cast Ceil
CheckNumerics ClipByValue Concat ConcatOffset ConcatV2 Const Conv2D Conv2DBackpropInput Conv3D
Conv3DBackpropInputV2 Cos Cosh CropAndResize Cumprod Cumsum DepthToSpace DepthwiseConv2dNative
Digamma DisableCopyOnRead Div DivNoNan DynamicPartition DynamicStitch Einsum Elu EnsureShape Enter
Equal Erf Erfc Erfinv Exit Exp ExpandDims Expm1 ExtractImagePatches FakeQuantWithMinMaxArgs
FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel Fill Floor FloorDiv FloorMod
FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual
HashTableV2 Identity IdentityN If Igamma Igammac Invert InvertPermutation IsFinite IsInf IsNan
L2Loss LRN LeakyRelu LeftShift Less LessEqual Lgamma LinSpace Log Log1p LogSoftmax LogicalAnd
LogicalNot LogicalOr LookupTableFindV2 LookupTableImportV2 LookupTableSizeV2 LoopCond MatMul
MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV3 MatrixDiagV3 MatrixSetDiagV3 Max MaxPool
MaxPool3D MaxPoolV2 MaxPoolWithArgmax Maximum Mean Merge Min Minimum MirrorPad Mod Mul MulNoNan
Multinomial Neg NextIteration NoOp NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5
NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall Placeholder PlaceholderWithDefault Pow
PreventGradient Prod RandomStandardNormal RandomUniform RandomUniformInt Range Rank ReadVariableOp
RealDiv Reciprocal Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor
ResourceGather ReverseV2 RightShift Rint Roll Round Rsqrt ScatterNd SegmentMax SegmentMean
SegmentSum Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
Softsign SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square SquaredDifference Squeeze Stack
StatefulPartitionedCall StatefulStandardNormalV2 StatelessIf StatelessRandomGetAlg
StatelessRandomGetKeyCounter StatelessRandomNormalV2 StatelessRandomUniformV2 StatelessWhile
StopGradient StridedSlice Sub Sum Switch Tan Tanh TensorListFromTensor TensorListGetItem
TensorListLength TensorListPushBack TensorListReserve TensorListResize TensorListSetItem
TensorListStack TensorScatterAdd TensorScatterUpdate Tile TopKV2 Transpose TruncateDiv TruncateMod
Unique Unpack UnsortedSegmentMax UnsortedSegmentSum VarHandleOp VarIsInitializedOp VariableV2 Where
While Xdivy Xlogy ZerosLike
"""
SAFE = frozenset(_NAMES.split())
