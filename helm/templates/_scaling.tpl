{{- /* Of {root, component, values}: the number of pods, where no autoscaler decides. */ -}}
{{- define "billhook.replicas" -}}
{{- if not (or (dig "hpa" "enabled" false .values) (dig "keda" "enabled" false .values)) -}}
replicas: {{ int .values.replicas }}
{{- end -}}
{{- end -}}

{{- define "billhook.hpa" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
{{ include "billhook.metadata" . }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "billhook.fullname" .root }}-{{ .component }}
  minReplicas: {{ int .values.hpa.minReplicas }}
  maxReplicas: {{ int .values.hpa.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ int .values.hpa.targetCPU }}}
{{- end -}}

{{- define "billhook.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
{{ include "billhook.metadata" . }}
spec:
  maxUnavailable: {{ .values.pdb.maxUnavailable }}
  # A pod that does not get ready holds up nothing.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "billhook.selector" . | nindent 6 }}
{{- end -}}

{{- /* Of {root, component}: the Service that Prometheus finds the pods of a worker or of beat by. */ -}}
{{- define "billhook.metricsService" -}}
apiVersion: v1
kind: Service
{{ include "billhook.metadata" . }}
spec:
  clusterIP: None
  selector:
    {{- include "billhook.selector" . | nindent 4 }}
  ports:
    - {name: metrics, port: 9090, targetPort: metrics}
{{- end -}}
